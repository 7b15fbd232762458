"""Replace mmcv.ops where mmcv has no compiled operators."""
import importlib
import importlib.util
import sys
import types
from typing import NoReturn, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from .versions import requirement

__all__ = ['point_sample', 'sigmoid_focal_loss', 'supply_mmcv_ops']


def point_sample(input: Tensor, points: Tensor, align_corners: bool = False,
                 **kwargs) -> Tensor:
    """Sample a feature map bilinearly at relative points.

    Args:
        input: (N, C, H, W).
        points: (N, P, 2) or (N, Hg, Wg, 2), x and y in [0, 1].
        align_corners: as in ``F.grid_sample``.
        **kwargs: of ``F.grid_sample``.

    Returns:
        (N, C, P), or (N, C, Hg, Wg) for a grid of points.
    """
    grid = 2 * points - 1  # [0, 1] -> [-1, 1], grid_sample's coordinates
    if points.dim() == 4:
        return F.grid_sample(
            input, grid, align_corners=align_corners, **kwargs)
    sampled = F.grid_sample(
        input, grid.unsqueeze(2), align_corners=align_corners, **kwargs)
    return sampled.squeeze(3)


def sigmoid_focal_loss(input: Tensor,
                       target: Tensor,
                       gamma: float = 2.0,
                       alpha: float = 0.25,
                       weight: Optional[Tensor] = None,
                       reduction: str = 'mean') -> Tensor:
    """Compute the focal loss over independent sigmoids (arXiv 1708.02002, eq. 5).

    Args:
        input: logits, (N, C).
        target: class of each row, (N, ), int64; C means "none".
        gamma: focusing exponent.
        alpha: weight of the positive class.
        weight: of each class, (C, ).
        reduction: 'none', 'mean' (over rows) or 'sum'.

    Returns:
        (N, C) for 'none', else a scalar.

    Raises:
        ValueError: for another reduction.
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


def _missing_operator(name: str) -> NoReturn:
    """Raise an error for a compiled operator that has no replacement here."""
    if name.startswith('__') and name.endswith('__'):
        raise AttributeError(name)
    low, high, _ = requirement('mmcv')
    raise ModuleNotFoundError(
        f'mmcv.ops.{name} is a compiled operator, which this mmcv does not '
        f'have. Install the full mmcv (>= {low}, < {high}, compiled for this '
        'PyTorch) to use it')


def supply_mmcv_ops() -> None:
    """Install a module ``mmcv.ops`` unless mmcv has compiled operators.

    MMSegmentation's models import ``point_sample`` and ``sigmoid_focal_loss``,
    whether they use them or not. Any other operator raises ModuleNotFoundError,
    the only exception that MMSegmentation's heads catch.
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
