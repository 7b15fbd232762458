"""Find the k-th largest of many numbers, for hard example mining.

``mmseg_encstdc::kth_largest`` is opaque to torch.compile. A CPU takes NumPy's
selection, several times faster there than torch's, a GPU PyTorch's multi-block
one. Neither sorts all values, and none makes the host wait for a GPU.
"""
import torch
from torch import Tensor

from .backend import define

__all__ = ['kth_largest']


def kth_largest(values: Tensor, k: int) -> Tensor:
    """Return the ``k``-th largest value, counted from 1; NaN is the largest.

    Values are float32 or float64, of any shape. The result, a scalar, has no
    gradient.

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


def _compute(values, k):
    values = values.flatten()
    if values.device.type != 'cpu':
        # kthvalue alone gives one block all values; it tells NaN from infinity.
        return values.topk(k, sorted=False).values.kthvalue(1).values
    index = values.numel() - k
    array = values.numpy().copy()
    array.partition(index)
    return torch.tensor(array[index], dtype=values.dtype)


def _refuse(ctx, *grads):
    raise RuntimeError('kth_largest has no gradient')


define('kth_largest(Tensor values, int k) -> Tensor', _compute,
       lambda values, k: values.new_empty(()), _refuse)
