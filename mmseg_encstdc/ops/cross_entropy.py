"""Cross entropy of bilinearly upsampled logits, pixel by pixel.

``upsampled_cross_entropy`` checks its arguments and calls one operator,
``mmseg_encstdc::upsampled_cross_entropy``, whose schema, fake and gradient stand
below. ``upsampled_cross_entropy_reference`` is the same in standard operators,
which hold the logits at full size, for tests.
"""
from functools import lru_cache
from typing import Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from . import paths

__all__ = ['upsampled_cross_entropy', 'upsampled_cross_entropy_reference']

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def upsampled_cross_entropy(
        logits: Tensor,
        labels: Tensor,
        align_corners: bool = False,
        ignore_index: int = 255,
        class_weight: Union[Tensor, Sequence[float], None] = None,
        with_hits: bool = False) -> Union[Tensor, Tuple[Tensor, Tensor]]:
    """Cross entropy of logits that are enlarged to the size of the labels.

    The same as ``F.cross_entropy(F.interpolate(logits, (H, W), mode='bilinear',
    align_corners=align_corners), labels, class_weight, reduction='none')``, but
    the enlarged logits never exist as a whole: on a CPU a band of their rows
    does, forward and again backward; on a GPU the kernels hold them in
    registers. What waits for the backward pass is one number for each pixel.
    Computed in float32 (float64 for float64 logits), also under autocast. A
    logit of minus infinity counts as a class that cannot be; one that is NaN may
    spread over a band. Forward-mode differentiation goes through the reference;
    gradients of gradients are a RuntimeError.

    Args:
        logits (Tensor): (B, C, h, w); float64, float32, bfloat16 or float16.
        labels (Tensor): class ids, (B, H, W), an integer type.
        align_corners (bool): of the interpolation. Default: False.
        ignore_index (int): id of pixels whose loss and gradient are 0.
            Default: 255.
        class_weight (Tensor | Sequence[float], optional): factor of each class,
            (C, ). Default: None.
        with_hits (bool): also return where the label's logit is the largest,
            which is what pixel accuracy counts. Default: False.

    Returns:
        Tensor: losses, (B, H, W), float32 or float64; with ``with_hits`` a tuple
        of them and of the hits, (B, H, W), bool.

    Raises:
        ValueError: for a shape, device or label that does not fit, naming the
            argument, what it has and what is accepted. On a GPU, where looking
            at the labels would wait for them, a label that is no class and not
            ignored makes the loss NaN instead.
        TypeError: likewise for a type.
    """
    if not torch.jit.is_tracing():
        check_arguments(logits, labels)
        if not isinstance(ignore_index, int):
            raise TypeError(f'ignore_index must be an int, got {ignore_index!r}')
    if paths.in_forward_mode(logits):
        return _composed(logits, labels, align_corners, ignore_index,
                         class_weight, with_hits)
    losses, hits, _ = torch.ops.mmseg_encstdc.upsampled_cross_entropy(
        logits, labels, align_corners, ignore_index)
    if class_weight is not None:
        losses = losses * pixel_weights(
            class_weight, labels, ignore_index, logits.size(1), losses)
    return (losses, hits) if with_hits else losses


def pixel_weights(class_weight: Union[Tensor, Sequence[float]], labels: Tensor,
                  ignore_index: int, classes: int, like: Tensor) -> Tensor:
    """The class's weight at each pixel, 0 at ignored ones, (B, H, W).

    Raises:
        ValueError: unless there is one weight for each of ``classes``.
    """
    if isinstance(class_weight, str):
        raise TypeError('class_weight must be numbers, got the text '
                        f'{class_weight!r}')
    if isinstance(class_weight, Tensor):
        weights = class_weight.to(like)
    else:
        make = torch.tensor if torch.compiler.is_compiling() else _sent_once
        weights = make(tuple(map(float, class_weight)), dtype=like.dtype,
                       device=like.device)
    if weights.shape != (classes, ):
        raise ValueError(f'class_weight must have {classes} numbers, one for '
                         f'each channel of the logits, got '
                         f'{tuple(weights.shape)}')
    labels = labels.long()  # a byte would wrap what it is compared with
    ignored = labels == ignore_index
    index = labels.masked_fill(ignored, 0).clamp(0, classes - 1)
    return weights[index].masked_fill(ignored, 0)


@lru_cache(maxsize=16)
def _sent_once(numbers: Tuple[float, ...], dtype: torch.dtype,
               device: torch.device) -> Tensor:
    """torch.tensor, remembered: sending numbers to a GPU waits for it."""
    return torch.tensor(numbers, dtype=dtype, device=device)


def check_arguments(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError or TypeError unless the arguments fit together."""
    for name, value in (('logits', logits), ('labels', labels)):
        if not isinstance(value, Tensor):
            raise TypeError(f'{name} must be a tensor, got a '
                            f'{type(value).__name__}')
    if logits.dtype not in FLOATS:
        raise TypeError('logits must be float64, float32, bfloat16 or float16, '
                        f'got {logits.dtype}')
    if labels.dtype not in INTEGERS:
        raise TypeError('labels must be of an integer type, got '
                        f'{labels.dtype}')
    if logits.dim() != 4 or 0 in logits.shape[1:]:
        raise ValueError('logits must be (B, C, h, w) with at least one class, '
                         f'row and column, got {tuple(logits.shape)}')
    if labels.dim() != 3 or 0 in labels.shape[1:]:
        raise ValueError('labels must be (B, H, W) with at least one row and '
                         f'column, got {tuple(labels.shape)}')
    if labels.size(0) != logits.size(0):
        raise ValueError(f'labels {tuple(labels.shape)} and logits '
                         f'{tuple(logits.shape)} must have the same batch size')
    if labels.device != logits.device:
        raise ValueError(f'labels are on {labels.device} and logits on '
                         f'{logits.device}; they must be on one device')


def check_labels(labels: Tensor, classes: int, ignore_index: int) -> None:
    """Raise ValueError where a label is neither a class nor ignored."""
    lowest, highest = (int(value) for value in labels.aminmax())
    if 0 <= lowest and highest < classes:
        return
    labels = labels.long()
    wrong = labels[((labels < 0) | (labels >= classes))
                   & (labels != ignore_index)]
    if wrong.numel():
        raise ValueError(f'labels hold the id {int(wrong[0])}, which is none of '
                         f'the {classes} classes of the logits and not '
                         f'ignore_index={ignore_index}')


# --- The operator: schema, implementation, fake, gradient --------------------

torch.library.define(
    'mmseg_encstdc::upsampled_cross_entropy',
    '(Tensor logits, Tensor labels, bool align_corners, int ignore_index) -> '
    '(Tensor losses, Tensor hits, Tensor normalisers)',
    tags=torch.Tag.pt2_compliant_tag)
torch.library.define(
    'mmseg_encstdc::upsampled_cross_entropy_backward',
    '(Tensor grad, Tensor logits, Tensor labels, Tensor normalisers, '
    'bool align_corners, int ignore_index) -> Tensor',
    tags=torch.Tag.pt2_compliant_tag)


@torch.library.impl('mmseg_encstdc::upsampled_cross_entropy', 'default')
def _forward(logits, labels, align_corners, ignore_index):
    if labels.device.type == 'cpu' and labels.numel():
        check_labels(labels, logits.size(1), ignore_index)
    with torch.autocast(logits.device.type, enabled=False):
        return paths.cross_entropy(logits, labels, align_corners, ignore_index)


@torch.library.impl('mmseg_encstdc::upsampled_cross_entropy_backward', 'default')
def _backward(grad, logits, labels, normalisers, align_corners, ignore_index):
    with torch.autocast(logits.device.type, enabled=False):
        return paths.cross_entropy_backward(
            grad, logits, labels, normalisers, align_corners, ignore_index)


@torch.library.register_fake('mmseg_encstdc::upsampled_cross_entropy')
def _(logits, labels, align_corners, ignore_index):
    wide = torch.promote_types(logits.dtype, torch.float32)
    return tuple(logits.new_empty(labels.shape, dtype=dtype)
                 for dtype in (wide, torch.bool, wide))


@torch.library.register_fake('mmseg_encstdc::upsampled_cross_entropy_backward')
def _(grad, logits, labels, normalisers, align_corners, ignore_index):
    return logits.new_empty(logits.shape)


def _setup_context(ctx, inputs, output):
    logits, labels, ctx.align_corners, ctx.ignore_index = inputs
    _, hits, normalisers = output
    ctx.mark_non_differentiable(hits, normalisers)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, labels, normalisers)


def _gradient(ctx, grad, *_):
    if grad is None:
        return None, None, None, None
    return (torch.ops.mmseg_encstdc.upsampled_cross_entropy_backward(
        grad, *ctx.saved_tensors, ctx.align_corners, ctx.ignore_index),
            None, None, None)


torch.library.register_autograd(
    'mmseg_encstdc::upsampled_cross_entropy', _gradient,
    setup_context=_setup_context)


def _refuse(ctx, *grads):
    raise RuntimeError('upsampled_cross_entropy has no gradient of its gradient; '
                       'for that, call mmseg_encstdc.ops.'
                       'upsampled_cross_entropy_reference')


torch.library.register_autograd(
    'mmseg_encstdc::upsampled_cross_entropy_backward', _refuse)


# --- The same without the operator -------------------------------------------


def _composed(logits, labels, align_corners, ignore_index, class_weight,
              with_hits):
    """The result in standard operators, which have a forward mode."""
    losses = upsampled_cross_entropy_reference(
        logits, labels, align_corners, ignore_index)
    if class_weight is not None:
        losses = losses * pixel_weights(
            class_weight, labels, ignore_index, logits.size(1), losses)
    if not with_hits:
        return losses
    _, hits, _ = torch.ops.mmseg_encstdc.upsampled_cross_entropy(
        logits.detach(), labels, align_corners, ignore_index)
    return losses, hits


def upsampled_cross_entropy_reference(
        logits: Tensor,
        labels: Tensor,
        align_corners: bool = False,
        ignore_index: int = 255,
        class_weight: Optional[Tensor] = None) -> Tensor:
    """:func:`upsampled_cross_entropy` with the enlarged logits as a tensor."""
    check_arguments(logits, labels)
    wide = torch.promote_types(logits.dtype, torch.float32)
    enlarged = F.interpolate(
        logits.to(wide), labels.shape[1:], mode='bilinear',
        align_corners=align_corners)
    return F.cross_entropy(enlarged, labels.long(), class_weight,
                           ignore_index=ignore_index, reduction='none')
