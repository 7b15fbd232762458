"""The k-th largest of many numbers, for hard example mining.

One operator, ``mmseg_encstdc::kth_largest``, opaque to torch.compile: on a CPU
NumPy's selection computes, several times faster than torch's; on a GPU the
kernels do, or else torch.kthvalue. Nothing is sorted and nothing waits for a
device.
"""
import numpy as np
import torch
from torch import Tensor

from . import paths

__all__ = ['kth_largest']


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The ``k``-th largest value, counted from 1; NaN counts as the largest.

    Args:
        values (Tensor): float32 or float64, any shape, at least one number.
        k (int): 1 <= k <= numel.

    Returns:
        Tensor: a scalar, without a gradient.

    Raises:
        ValueError: for a ``k`` out of range.
        TypeError: for another type.
    """
    if values.dtype not in (torch.float32, torch.float64):
        raise TypeError(f'values must be float32 or float64, got {values.dtype}')
    if not 1 <= k <= values.numel():
        raise ValueError(f'k must be in [1, {values.numel()}], the number of '
                         f'values, got {k}')
    return torch.ops.mmseg_encstdc.kth_largest(values.detach(), k)


torch.library.define(
    'mmseg_encstdc::kth_largest', '(Tensor values, int k) -> Tensor',
    tags=torch.Tag.pt2_compliant_tag)


@torch.library.impl('mmseg_encstdc::kth_largest', 'default')
def _kth_largest(values, k):
    values = values.flatten()
    below = values.numel() - k
    if values.device.type == 'cpu':
        found = np.partition(values.numpy(), below)[below]
        return torch.tensor(found, dtype=values.dtype)
    if values.is_cuda and values.dtype == torch.float32 and paths.extension():
        return paths.extension().kth_largest(values, k)
    return values.kthvalue(below + 1).values


@torch.library.register_fake('mmseg_encstdc::kth_largest')
def _(values, k):
    return values.new_empty(())
