"""Find this package's configs."""
from pathlib import Path

__all__ = ['config_file', 'config_folder']

PACKAGE = Path(__file__).resolve().parent


def config_folder() -> Path:
    """Return the folder of the configs, in the installed package or the checkout.

    Raises:
        FileNotFoundError: when there is neither.
    """
    for folder in (PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs'):
        if (folder / '_base_' / 'default_runtime.py').is_file():
            return folder.resolve()
    raise FileNotFoundError(f'{PACKAGE} has no configs; install the package, or '
                            'use it from a checkout')


def config_file(name: str) -> str:
    """Return the path of a config, for the ``_base_`` of a user's config.

    Args:
        name: path below configs/, such as ``encnet_r50_ade.py``.

    Raises:
        FileNotFoundError: listing the configs that exist.
    """
    path = config_folder() / name
    if not path.is_file():
        there = ', '.join(sorted(file.name for file in path.parent.glob('*.py')))
        raise FileNotFoundError(
            f'mmseg_encstdc has no config {name}; in that folder there are: '
            + (there or 'none'))
    return str(path)
