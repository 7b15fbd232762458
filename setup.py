"""Build of the package. What it needs and who wrote it is in pyproject.toml.

The CUDA kernels of the Encoding operator are built where a CUDA build of
PyTorch and nvcc are there, which build isolation hides:
``pip install --no-build-isolation .``. Else the package is pure Python.
"""
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


def extension() -> dict:
    """Arguments of setup() for the kernels; none where they cannot be built."""
    try:
        import torch
        from torch.utils.cpp_extension import (
            CUDA_HOME,
            BuildExtension,
            CUDAExtension,
        )
    except ImportError:
        return skip('PyTorch is not there')
    if torch.version.cuda is None:
        return skip('this PyTorch is built without CUDA')
    if CUDA_HOME is None or not (Path(CUDA_HOME) / 'bin' / 'nvcc').exists():
        return skip('nvcc is not there')
    sources = sorted(
        file.relative_to(ROOT).as_posix()
        for pattern in ('*.cpp', '*.cu') for file in (ROOT / 'ops').glob(pattern))
    module = CUDAExtension(
        'mmseg_encstdc._cuda', sources,
        extra_compile_args=dict(cxx=['-O3'], nvcc=['-O3']))
    return dict(ext_modules=[module], cmdclass=dict(build_ext=BuildExtension))


def skip(reason: str) -> dict:
    """No extension, and why."""
    print(f'mmseg_encstdc: no CUDA kernels, because {reason}')
    return {}


setup(version=version(), packages=packages(), **extension())
