"""Find the k-th largest of many numbers, for hard example mining.

torch.compile does not look into the operator ``mmseg_encstdc::kth_largest``. On a CPU
it calls NumPy's selection, which is several times faster than torch's; on a GPU,
PyTorch's topk, which uses several blocks. Neither sorts all values. The host does not
wait for the GPU.
"""
import torch
from torch import Tensor

from .backend import define

__all__ = ['kth_largest']


def kth_largest(values: Tensor, k: int) -> Tensor:
    """Return the ``k``-th largest value as a scalar tensor without gradient.

    Args:
        values: float32 or float64, any shape; NaN is larger than any number.
        k: rank, from 1 to the number of values.

    Raises:
        ValueError: when ``k`` is out of range.
        TypeError: when an argument has another type.
    """
    dtype = values.dtype if isinstance(values, Tensor) else type(values).__name__
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f'values must be float32 or float64, got {dtype}')
    if not isinstance(k, int):
        raise TypeError(f'k must be an int, got {k!r}')
    if not 1 <= k <= values.numel():
        raise ValueError(f'k must be in [1, {values.numel()}], the number of '
                         f'values, got {k}')
    return torch.ops.mmseg_encstdc.kth_largest(values.detach(), k)


def _compute(values, k):
    values = values.flatten()
    if values.device.type != 'cpu':
        return kth_largest_by_topk(values, k)
    index = values.numel() - k
    array = values.numpy().copy()
    array.partition(index)
    return torch.tensor(array[index], dtype=values.dtype)


def kth_largest_by_topk(values: Tensor, k: int) -> Tensor:
    """Return the ``k``-th largest of values (N, ).

    Not by kthvalue, which runs in one block of a GPU, nor by amin of the largest,
    which would return NaN if one is.
    """
    largest = values.topk(k, sorted=False).values
    return largest.topk(1, largest=False, sorted=False).values[0]


def _refuse(ctx, *grads):
    raise RuntimeError('kth_largest has no gradient')


define('kth_largest(Tensor values, int k) -> Tensor', _compute,
       lambda values, k: values.new_empty(()), _refuse)
