"""Work around versions of mmengine, mmcv and mmseg; no other folder does.

``prepare()`` runs when the plugin is imported, before ``mmseg.models`` is, and may
be repeated. ``data`` is imported where it is used, because it needs OpenCV.
"""
import importlib
import warnings

from .checkpoints import allow_own_checkpoints, keep_checkpoints_safe
from .configs import find_own_configs
from .differences import counts_ignored_class, swaps_channels
from .logs import info, say_once, warn
from .mmcv_ops import supply_mmcv_ops
from .notices import quiet, without_notices
from .onnx import tracing_exporter
from .override import OVERRIDE, replaces_stock
from .versions import (
    DISTRIBUTIONS_OF_FORK,
    FORK,
    STOCK,
    StackError,
    check_stack,
    requirement,
)

__all__ = [
    'DISTRIBUTIONS_OF_FORK', 'FORK', 'OVERRIDE', 'STOCK', 'StackError',
    'check_stack', 'counts_ignored_class', 'info', 'prepare', 'quiet',
    'replaces_stock', 'requirement', 'say_once', 'swaps_channels',
    'tracing_exporter', 'warn'
]


def prepare() -> None:
    """Make the stack importable and its checkpoints loadable.

    Raises:
        StackError: see :func:`check_stack`.
    """
    check_stack()
    supply_mmcv_ops()
    with warnings.catch_warnings(), without_notices():
        # mmseg warns of each optional operator that mmcv-lite does not have.
        warnings.filterwarnings('ignore', 'Fail to import')
        importlib.import_module('mmseg.models')
        importlib.import_module('mmseg.datasets')
    allow_own_checkpoints()
    keep_checkpoints_safe()
    find_own_configs()
