"""Let MMEngine load its own checkpoints, and execute none of their content."""
import importlib
import pickle

import numpy as np
import torch
from packaging.version import Version

__all__ = [
    'allow_own_checkpoints', 'keep_checkpoints_safe', 'restricted_getattr'
]


def restricted_getattr(obj, name, *default):
    """Do the only attribute look-ups that loading a checkpoint may do.

    MMEngine pickles four methods of HistoryBuffer by name, which a pickle
    expresses through ``getattr``. The real one would let a crafted file walk
    from an allowed object to anything, so this one knows just those four.

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
    """Return the smallest list with which MMEngine's checkpoints load."""
    from mmengine.logging import HistoryBuffer
    multiarray = np.asarray(0).__reduce__()[0].__module__
    core = importlib.import_module(multiarray)
    allowed = [
        HistoryBuffer, np.ndarray, np.dtype,
        (restricted_getattr, 'builtins.getattr')
    ]
    # NumPy 2 renamed the module; files written under the other one load too.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed.append((core._reconstruct, f'{module}._reconstruct'))
        allowed.append((core.scalar, f'{module}.scalar'))
    allowed += [type(np.dtype(kind)) for kind in ('float64', 'int64')]
    return allowed


def allow_own_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read MMEngine's checkpoints.

    From torch 2.6 that is the default, and MMEngine 0.10 passes nothing, so
    it could neither resume nor load what it saved itself.
    """
    if Version(torch.__version__) < Version('2.6'):
        return
    torch.serialization.add_safe_globals(_checkpoint_globals())


def keep_checkpoints_safe() -> None:
    """Let the fork's loader do as ``torch.load`` does, and no more.

    onedl-mmengine allows the real getattr while it loads, takes what is allowed
    here off the list afterwards, and reads a file that was refused a second
    time with ``weights_only=False``, which executes whatever the file says.
    The other MMEngine has no such function.
    """
    loader = importlib.import_module('mmengine.runner.checkpoint')
    if hasattr(loader, '_safe_torch_load'):
        loader._safe_torch_load = _load_as_torch_does


def _load_as_torch_does(file, map_location=None, weights_only=None):
    return torch.load(
        file, map_location=map_location, weights_only=weights_only)
