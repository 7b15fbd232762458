"""Find the k-th largest of many numbers, for hard example mining.

``mmseg_encstdc::kth_largest`` is opaque to torch.compile. A CPU takes NumPy's
selection, several times faster there than torch's, a GPU PyTorch's multi-block
one. Neither sorts all values, and none makes the host wait for a GPU.
"""
import torch
from torch import Tensor

__all__ = ['kth_largest']


def kth_largest(values: Tensor, k: int) -> Tensor:
    """Return the ``k``-th largest value, counted from 1; NaN is the largest.

    Args:
        values: float32 or float64, any shape, at least one number.
        k: 1 <= k <= the number of values.

    Returns:
        A scalar, without a gradient.

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
    if values.device.type != 'cpu':
        # kthvalue alone gives one block all values; it tells NaN from infinity.
        return values.topk(k, sorted=False).values.kthvalue(1).values
    index = values.numel() - k
    array = values.numpy().copy()
    array.partition(index)
    return torch.tensor(array[index], dtype=values.dtype)


@torch.library.register_fake('mmseg_encstdc::kth_largest')
def _(values, k):
    return values.new_empty(())
