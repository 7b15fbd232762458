"""Check the arguments of the upsampled cross entropy; look up class weights."""
from functools import lru_cache
from typing import Sequence, Tuple, Union

import torch
from torch import Tensor

from ..tensors import check_tensors

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_arguments(logits: Tensor, labels: Tensor, ignore_index: int) -> None:
    """Check that logits (B, C, h, w) and labels (B, H, W) fit together.

    Raises:
        ValueError, TypeError: naming the argument, its value and what is accepted.
    """
    check_tensors(logits=logits, labels=labels)
    if labels.dtype not in INTEGERS:
        raise TypeError(f'labels must be of an integer type (int64, int32, '
                        f'int16, int8, uint8), got {labels.dtype}')
    if logits.dim() != 4 or 0 in logits.shape[1:]:
        raise ValueError('logits must be (B, C, h, w) with at least one class, '
                         f'row and column, got {tuple(logits.shape)}')
    if labels.dim() != 3 or 0 in labels.shape[1:]:
        raise ValueError('labels must be (B, H, W) with at least one row and '
                         f'column, got {tuple(labels.shape)}')
    if labels.size(0) != logits.size(0):
        raise ValueError(f'labels {tuple(labels.shape)} and logits '
                         f'{tuple(logits.shape)} must have the same batch size')
    if not isinstance(ignore_index, int):
        raise TypeError(f'ignore_index must be an int, got {ignore_index!r}')


def check_labels(labels: Tensor, classes: int, ignore_index: int) -> None:
    """Raise ValueError if a label (B, H, W) is neither a class nor ignored."""
    lowest, highest = (int(value) for value in labels.aminmax())
    if 0 <= lowest and highest < classes:
        return
    labels = labels.long()
    invalid = labels[((labels < 0) | (labels >= classes))
                     & (labels != ignore_index)]
    if invalid.numel():
        raise ValueError(f'labels hold the id {int(invalid[0])}, which is none of '
                         f'the {classes} classes of the logits and not '
                         f'ignore_index={ignore_index}')


def pixel_weights(class_weight: Union[Tensor, Sequence[float]], labels: Tensor,
                  ignore_index: int, classes: int, like: Tensor) -> Tensor:
    """Return the weight of each pixel's class, 0 at ignored pixels, (B, H, W).

    Type and device are those of ``like``. Raises as :func:`class_weights`.
    """
    weights = class_weights(class_weight, classes, like)  # (C, )
    labels = labels.long()  # int8 and uint8 cannot hold every ignore_index
    ignored = labels == ignore_index
    index = labels.masked_fill(ignored, 0).clamp(0, classes - 1)
    return weights[index].masked_fill(ignored, 0)


def class_weights(class_weight: Union[Tensor, Sequence[float]], classes: int,
                  like: Tensor) -> Tensor:
    """Return the weights, (C, ), in the type and on the device of ``like``.

    Raises:
        ValueError: when there is not one number for each class.
        TypeError: when ``class_weight`` is not a sequence of numbers.
    """
    if isinstance(class_weight, Tensor):
        weights = class_weight.to(like)
    else:
        # A tensor of a tracing mode must not stay in the cache.
        make = (_cached_tensor if type(like) is Tensor and
                not torch.compiler.is_compiling() else torch.tensor)
        weights = make(_numbers(class_weight), dtype=like.dtype, device=like.device)
    if weights.shape != (classes, ):
        raise ValueError(f'class_weight must have {classes} numbers, one for each '
                         f'channel of the logits, got {tuple(weights.shape)}')
    return weights


def _numbers(class_weight: Sequence[float]) -> Tuple[float, ...]:
    """Return a hashable sequence of floats, or raise TypeError."""
    try:
        if isinstance(class_weight, (str, bytes, dict, set)):
            raise TypeError
        return tuple(value + 0.0 for value in class_weight)
    except TypeError:
        raise TypeError('class_weight must be a sequence of numbers, got '
                        f'{class_weight!r}') from None


@lru_cache(maxsize=16)
def _cached_tensor(numbers: Tuple[float, ...], dtype: torch.dtype,
                   device: torch.device) -> Tensor:
    """Make a tensor once, because copying numbers to a GPU makes the host wait."""
    return torch.tensor(numbers, dtype=dtype, device=device)
