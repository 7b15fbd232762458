"""What this plugin knows about the versions and gaps of the stack below it.

Nothing outside this file may ask for a version or work around a library.
``prepare()`` runs at the first import of the plugin, before anything else of
it touches ``mmseg.models``; every step of it is harmless when repeated.
"""
import contextlib
import functools
import importlib
import importlib.util
import inspect
import io
import logging
import multiprocessing
import os
import pickle
import sys
import types
import warnings
from importlib import metadata
from typing import Iterator, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from packaging.version import Version

__all__ = [
    'OVERRIDE', 'StackError', 'check_stack', 'requirement', 'prepare',
    'replaces_stock', 'say_once', 'supply_mmcv_ops', 'allow_own_checkpoints',
    'counts_ignored_class', 'find_own_configs', 'keep_checkpoints_safe',
    'restricted_getattr', 'swaps_channels', 'tracing_exporter'
]

# Module -> (lowest accepted, first refused, what to install).
STOCK = {
    'mmengine': ('0.7.1', '1.0.0', 'mmengine==0.10.7'),
    'mmcv': ('2.0.0rc4', '2.2.0',
             'mmcv-lite==2.1.0, or mmcv==2.1.0 for the compiled operators'),
    'mmseg': ('1.0.0', '2.0.0', 'mmsegmentation==1.2.2 ftfy regex'),
}
# The maintained fork keeps the import names and has versions of its own.
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
# What the fork prints at level DEBUG when it is imported, for want of a logger.
NOTICES = ('Could not import OneDL', )


# 0: MMSegmentation's own names stay its own.
OVERRIDE = 'MMSEG_ENCSTDC_OVERRIDE'


class StackError(ImportError):
    """A library this plugin needs is missing, or its version does not fit."""


def check_stack() -> None:
    """Import mmengine, mmcv and mmseg and compare their versions.

    Raises:
        StackError: in one line: what is missing or out of range, which
            versions are accepted, and what to install.
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
    """Lowest version accepted, first one refused, and what to install.

    They are the fork's where the fork gives the module, or would complete what
    is there of it.

    Args:
        module (str): mmengine, mmcv or mmseg.
    """
    if importlib.util.find_spec(module) is None:
        names = DISTRIBUTIONS_OF_FORK.values()
    else:
        names = [DISTRIBUTIONS_OF_FORK[module]]
    return (FORK if any(map(_distribution_exists, names)) else STOCK)[module]


def prepare() -> None:
    """Make the stack importable and its checkpoints loadable.

    Raises:
        StackError: see :func:`check_stack`.
    """
    check_stack()
    supply_mmcv_ops()
    with warnings.catch_warnings(), _without_notices():
        # mmseg warns of each optional operator that mmcv-lite cannot give.
        warnings.filterwarnings('ignore', 'Fail to import')
        importlib.import_module('mmseg.models')
        importlib.import_module('mmseg.datasets')
    allow_own_checkpoints()
    keep_checkpoints_safe()
    find_own_configs()


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Leave :data:`NOTICES` out of what is printed."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            if line not in NOTICES:
                print(line)


def replaces_stock() -> bool:
    """Whether MMSegmentation's own names should be ours, by ``OVERRIDE``.

    Raises:
        StackError: unless the variable is unset, empty, 0 or 1.
    """
    asked = os.environ.get(OVERRIDE) or '1'
    if asked not in ('0', '1'):
        raise StackError(f'{OVERRIDE}={asked} is not known; give 1 to replace '
                         "MMSegmentation's entries, which is the default, or 0")
    return asked == '1'


@functools.cache
def say_once(message: str) -> None:
    """One INFO line of the first process; others and workers say nothing.

    Not by MMEngine's logger: one that is made before a process knows its rank
    lets every rank speak, from then on.
    """
    first = os.environ.get('RANK', '0') == '0'
    if not first or multiprocessing.current_process().name != 'MainProcess':
        return
    logger = logging.getLogger(__package__)
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stdout)  # as MMEngine's
        handler.setFormatter(logging.Formatter(
            '%(asctime)s - %(name)s - %(levelname)s - %(message)s', '%m/%d %H:%M:%S'))
        logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    logger.info(message)


def _distribution_exists(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


# --- mmcv.ops without the compiled operators ---------------------------------


def point_sample(input, points, align_corners=False, **kwargs):
    """Bilinear values of a feature map at relative points.

    Args:
        input (Tensor): (N, C, H, W).
        points (Tensor): (N, P, 2) or (N, Hg, Wg, 2), x and y in [0, 1].
        align_corners (bool): as in ``F.grid_sample``. Default: False.

    Returns:
        Tensor: (N, C, P), or (N, C, Hg, Wg) for a grid of points.
    """
    grid = 2 * points - 1  # [0, 1] -> [-1, 1], grid_sample's coordinates
    if points.dim() == 4:
        return F.grid_sample(
            input, grid, align_corners=align_corners, **kwargs)
    sampled = F.grid_sample(
        input, grid.unsqueeze(2), align_corners=align_corners, **kwargs)
    return sampled.squeeze(3)


def sigmoid_focal_loss(input,
                       target,
                       gamma=2.0,
                       alpha=0.25,
                       weight=None,
                       reduction='mean'):
    """Focal loss over independent sigmoids (arXiv 1708.02002, eq. 5).

    Args:
        input (Tensor): logits, (N, C).
        target (Tensor): class of each row, (N, ), int64; C means "none".
        gamma (float): focusing exponent. Default: 2.0.
        alpha (float): weight of the positive class. Default: 0.25.
        weight (Tensor, optional): weight of each class, (C, ).
        reduction (str): 'none', 'mean' (over rows) or 'sum'.

    Returns:
        Tensor: (N, C) for 'none', else a scalar.
    """
    classes = torch.arange(input.size(1), device=input.device)
    positive = target.view(-1, 1) == classes  # (N, C)
    log_p, log_not_p = F.logsigmoid(input), F.logsigmoid(-input)
    loss = torch.where(positive,
                       -alpha * log_not_p.exp()**gamma * log_p,
                       -(1 - alpha) * log_p.exp()**gamma * log_not_p)
    if weight is not None:
        padded = torch.cat([weight, weight.new_ones(1)])
        loss = loss * padded[target.clamp(0, input.size(1))].view(-1, 1)
    if reduction == 'none':
        return loss
    if reduction == 'sum':
        return loss.sum()
    if reduction == 'mean':
        return loss.sum() / max(input.size(0), 1)
    raise ValueError(
        f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def _missing_operator(name: str):
    if name.startswith('__') and name.endswith('__'):
        raise AttributeError(name)
    low, high, _ = requirement('mmcv')
    raise ModuleNotFoundError(
        f'mmcv.ops.{name} is a compiled operator, which this mmcv does not '
        f'have. Install the full mmcv (>= {low}, < {high}, compiled for this '
        'PyTorch) to use it')


def supply_mmcv_ops() -> None:
    """Put a stand-in for ``mmcv.ops`` in place where mmcv was not compiled.

    MMSegmentation imports ``point_sample`` and ``sigmoid_focal_loss`` with
    its models, so without them not even a network that uses neither can be
    built. Any other operator raises ModuleNotFoundError, the one exception
    that MMSegmentation's heads catch. A compiled mmcv is left alone.
    """
    if 'mmcv.ops' in sys.modules:
        return
    if importlib.util.find_spec('mmcv._ext') is not None:
        return
    ops = types.ModuleType(
        'mmcv.ops', 'PyTorch versions of the operators mmseg imports.')
    ops.__path__ = []  # "import mmcv.ops.nms" then fails as not found
    ops.point_sample = point_sample
    ops.sigmoid_focal_loss = sigmoid_focal_loss
    ops.__getattr__ = _missing_operator
    sys.modules['mmcv.ops'] = ops
    importlib.import_module('mmcv').ops = ops


# --- torch.load with weights_only --------------------------------------------


def restricted_getattr(obj, name, *default):
    """The only attribute look-ups that loading a checkpoint may do.

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
    """The smallest list with which MMEngine's training checkpoints load."""
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


# --- ONNX ---------------------------------------------------------------------


def tracing_exporter() -> dict:
    """Arguments with which ``torch.onnx.export`` traces.

    Its newer way, dynamo=True, takes ten times as long for these networks, and
    for free sizes leaves the Encoding operator in the file. Before torch 2.5
    there was one way and no argument.
    """
    known = inspect.signature(torch.onnx.export).parameters
    return dict(dynamo=False) if 'dynamo' in known else {}


# --- Configs as 'mmseg_encstdc::NAME.py' --------------------------------------


def find_own_configs() -> None:
    """Let ``_base_`` name a config of this package: ``mmseg_encstdc::NAME.py``.

    MMEngine looks up the packages of a table of its own, takes names in a
    folder only, and finds none in a checkout that is merely on the path. What
    such a config defines is looked up in MMSegmentation's registries, whatever
    the inheriting one has as its default scope.
    """
    from mmengine.config import Config

    from .config_files import config_file
    stock = Config._get_cfg_path
    if getattr(stock, 'finds', None) == __package__:
        return

    def get_cfg_path(cfg_path, filename):
        package, mark, name = cfg_path.partition('::')
        if mark and package == __package__:
            return config_file(name), 'mmseg'
        return stock(cfg_path, filename)

    get_cfg_path.finds = __package__
    Config._get_cfg_path = staticmethod(get_cfg_path)


# --- Where the stacks differ ----------------------------------------------------


def swaps_channels(preprocessor) -> bool:
    """Whether a data preprocessor turns BGR images to RGB, or back."""
    return any(getattr(preprocessor, name, False)
               for name in ('channel_conversion', '_channel_conversion'))


@functools.cache
def counts_ignored_class() -> bool:
    """Whether the stack's weighed cross entropy counts ignored pixels.

    Without ``avg_non_ignore`` MMSegmentation divides by the weights of all pixels
    whose id is a class, the fork by those of the others. Two pixels, one of them
    ignored, of loss log 2 = 0.69 tell.
    """
    from mmseg.models.losses.cross_entropy_loss import cross_entropy
    loss = cross_entropy(
        torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]),
        class_weight=torch.ones(2), ignore_index=1)
    return bool(loss < 0.5)


# --- Logging -----------------------------------------------------------------


def info(message: str) -> None:
    """One INFO line in MMEngine's current log, or in Python's before it."""
    from mmengine.logging import print_log
    print_log(message, logger='current', level=logging.INFO)
