"""Build of the package. What it needs and who wrote it is in pyproject.toml."""
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent


def version() -> str:
    """The version that mmseg_encstdc/__init__.py states."""
    text = (ROOT / 'mmseg_encstdc' / '__init__.py').read_text()
    return re.search(r"^__version__ = '(.+)'$", text, re.M).group(1)


def packages() -> list:
    """Named, because ops, configs and tools beside it are none."""
    folders = (ROOT / 'mmseg_encstdc').glob('**/__init__.py')
    return sorted(
        '.'.join(f.parent.relative_to(ROOT).parts) for f in folders)


setup(version=version(), packages=packages())
