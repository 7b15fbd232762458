"""Let MMEngine load its own checkpoints without executing pickled code."""
import importlib
import pickle
from typing import Any, Callable

import numpy as np
import torch

__all__ = [
    'allow_own_checkpoints', 'keep_checkpoints_safe', 'restricted_getattr'
]


def restricted_getattr(obj: Any, name: str, *default: Any) -> Callable:
    """Return one of four methods of HistoryBuffer, in place of ``getattr``.

    MMEngine pickles these methods by name, as calls of ``getattr``. The real
    ``getattr`` would let a crafted file reach any object from an allowed one.

    Raises:
        pickle.UnpicklingError: for any other object or name.
    """
    from mmengine.logging import HistoryBuffer
    if obj is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(
        f'this checkpoint asks for attribute {name!r} of {obj!r}; a '
        'checkpoint of MMEngine needs no such look-up, so the file is '
        'damaged or hostile and was not loaded')


def _checkpoint_globals() -> list:
    """Return the globals that checkpoints of MMEngine refer to."""
    from mmengine.logging import HistoryBuffer
    multiarray = np.asarray(0).__reduce__()[0].__module__
    core = importlib.import_module(multiarray)
    allowed = [
        HistoryBuffer, np.ndarray, np.dtype,
        (restricted_getattr, 'builtins.getattr')
    ]
    # NumPy 2 renamed the module; accept files written by either version.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed.append((core._reconstruct, f'{module}._reconstruct'))
        allowed.append((core.scalar, f'{module}.scalar'))
    allowed += [type(np.dtype(kind)) for kind in ('float64', 'int64')]
    return allowed


def allow_own_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read MMEngine's checkpoints.

    ``weights_only`` is the default. MMEngine 0.10 does not set it, so it could not load
    the checkpoints that it saved.
    """
    torch.serialization.add_safe_globals(_checkpoint_globals())


def keep_checkpoints_safe() -> None:
    """Replace the fork's loader of checkpoints by ``torch.load``.

    onedl-mmengine allows the real ``getattr`` while it loads, then removes our
    allowed globals, and loads a refused file again with ``weights_only=False``,
    which executes it. The other MMEngine has no such function.
    """
    loader = importlib.import_module('mmengine.runner.checkpoint')
    if hasattr(loader, '_safe_torch_load'):
        loader._safe_torch_load = _load_as_torch_does


def _load_as_torch_does(file, map_location=None, weights_only=None):
    return torch.load(
        file, map_location=map_location, weights_only=weights_only)
