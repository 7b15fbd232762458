"""Check which versions of mmengine, mmcv and mmseg are installed."""
import importlib
import importlib.util
from importlib import metadata
from typing import Tuple

from packaging.version import Version

__all__ = [
    'DISTRIBUTIONS_OF_FORK', 'FORK', 'STOCK', 'StackError', 'check_stack',
    'requirement'
]

# Module -> (lowest accepted, first refused, what to install).
STOCK = {
    'mmengine': ('0.7.1', '1.0.0', 'mmengine==0.10.7'),
    'mmcv': ('2.0.0rc4', '2.2.0',
             'mmcv-lite==2.1.0, or mmcv==2.1.0 for the compiled operators'),
    'mmseg': ('1.0.0', '2.0.0', 'mmsegmentation==1.2.2 ftfy regex'),
}
# The maintained fork has the same import names and other version numbers.
FORK = {
    'mmengine': ('0.10.8', '1.0.0', 'onedl-mmengine==0.10.12'),
    'mmcv': ('2.3.0', '3.0.0', 'onedl-mmcv==2.3.6'),
    'mmseg': ('1.3.0', '2.0.0', 'onedl-mmsegmentation==1.4.2'),
}
DISTRIBUTIONS_OF_FORK = {
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmseg': 'onedl-mmsegmentation',
}


class StackError(ImportError):
    """Report a required library that is missing or has another version."""


def check_stack() -> None:
    """Import mmengine, mmcv and mmseg and check their versions.

    Raises:
        StackError: when one is missing or out of range, naming in one line the
            accepted versions and what to install.
    """
    for module in STOCK:
        low, high, install = requirement(module)
        accepted = f'>= {low}, < {high}'
        remedy = f'Install it with: pip install {install}'
        if importlib.util.find_spec(module) is None:
            raise StackError(
                f'mmseg_encstdc needs {module} ({accepted}), which is not '
                f'installed. {remedy}')
        version = getattr(importlib.import_module(module), '__version__', '0')
        if not Version(low) <= Version(version) < Version(high):
            raise StackError(
                f'mmseg_encstdc needs {module} {accepted}, found {version}. '
                f'{remedy}')


def requirement(module: str) -> Tuple[str, str, str]:
    """Return the lowest version accepted, the first refused, and what to install.

    They are those of the fork, onedl, if the module is installed from it, or if the
    module is missing and another part of the fork is installed.

    Args:
        module: mmengine, mmcv or mmseg.
    """
    if importlib.util.find_spec(module) is None:
        names = DISTRIBUTIONS_OF_FORK.values()
    else:
        names = [DISTRIBUTIONS_OF_FORK[module]]
    return (FORK if any(map(_distribution_exists, names)) else STOCK)[module]


def _distribution_exists(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
