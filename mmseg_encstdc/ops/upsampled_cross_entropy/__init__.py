"""Compute the cross entropy of bilinearly upsampled logits at each pixel.

``upsampled_cross_entropy`` checks its arguments and calls the operator
``mmseg_encstdc::upsampled_cross_entropy``. ``bands`` computes it on any device,
``triton`` on a GPU; ``backend`` chooses. ``reference`` uses standard operators.
"""
from typing import Dict, Sequence, Tuple, Union

import torch
from torch import Tensor

from .. import backend
from .arguments import check_arguments, check_labels, pixel_weights
from .reference import upsampled_cross_entropy_reference

__all__ = ['pixel_weights', 'upsampled_cross_entropy']


def upsampled_cross_entropy(
        logits: Tensor,
        labels: Tensor,
        align_corners: bool = False,
        ignore_index: int = 255,
        class_weight: Union[Tensor, Sequence[float], None] = None,
        with_hits: bool = False) -> Union[Tensor, Tuple[Tensor, Tensor]]:
    """Compute the cross entropy of logits enlarged to the size of the labels.

    Equals ``F.cross_entropy(F.interpolate(logits, (H, W), mode='bilinear',
    align_corners=align_corners), labels, class_weight, reduction='none')``, without
    the enlarged logits in memory: a CPU computes them in bands of rows, forward and
    again backward; a Triton kernel holds them in registers. One number per pixel is
    kept for the backward pass. Computes in float32 (float64 for float64 logits), also
    under autocast. A logit of minus infinity means an impossible class; a NaN may
    spread over a band of rows. Forward-mode differentiation uses
    :func:`upsampled_cross_entropy_reference`. A gradient of a gradient raises
    RuntimeError.

    Args:
        logits: (B, C, h, w); float64, float32, bfloat16 or float16.
        labels: class ids, (B, H, W), an integer type.
        align_corners: of the interpolation.
        ignore_index: id of pixels whose loss and gradient are 0.
        class_weight: factor of each class, (C, ).
        with_hits: also return where the label's logit is the largest, which is
            what pixel accuracy counts.

    Returns:
        Losses, (B, H, W), float32 or float64; with ``with_hits`` a tuple of them
        and of the hits, (B, H, W), bool.

    Raises:
        ValueError, TypeError: when a shape, device, type or label does not fit,
            naming the argument, its value and what is accepted. On a GPU, where a
            check of the labels would make the host wait, a label that is neither a
            class nor ignored makes the loss NaN instead.
        RuntimeError: when MMSEG_ENCSTDC_BACKEND names a backend that cannot
            compute this, with the reason.
    """
    if not torch.jit.is_tracing():
        check_arguments(logits, labels, ignore_index)
    if backend.in_forward_mode(logits):
        return upsampled_cross_entropy_reference(
            logits, labels, align_corners, ignore_index, class_weight, with_hits)
    losses, hits, _ = torch.ops.mmseg_encstdc.upsampled_cross_entropy(
        logits, labels, align_corners, ignore_index)
    if class_weight is not None:
        losses = losses * pixel_weights(
            class_weight, labels, ignore_index, logits.size(1), losses)
    return (losses, hits) if with_hits else losses


# --- The operators: schema, implementation, fake, gradient --------------------


def _forward(logits, labels, align_corners, ignore_index):
    check_arguments(logits, labels, ignore_index)  # a trace has no checks
    if labels.device.type == 'cpu' and labels.numel():
        check_labels(labels, logits.size(1), ignore_index)
    return backend.choose('upsampled_cross_entropy', logits, labels).forward(
        logits, labels, align_corners, ignore_index)


def _backward(grad, logits, labels, logsumexp, align_corners, ignore_index):
    return backend.choose('upsampled_cross_entropy', logits, labels).backward(
        grad, logits, labels, logsumexp, align_corners, ignore_index)


def _forward_fake(logits, labels, align_corners, ignore_index):
    wide = torch.promote_types(logits.dtype, torch.float32)
    return tuple(logits.new_empty(labels.shape, dtype=dtype)
                 for dtype in (wide, torch.bool, wide))


def _backward_fake(grad, logits, *_):
    return logits.new_empty(logits.shape)


def _keep(ctx, inputs, output):
    logits, labels, *ctx.options = inputs
    _, hits, logsumexp = output
    ctx.mark_non_differentiable(hits, logsumexp)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, labels, logsumexp)


def _gradient(ctx, grad, *_):
    backward = torch.ops.mmseg_encstdc.upsampled_cross_entropy_backward
    return (None if grad is None else backward(
        grad, *ctx.saved_tensors, *ctx.options), None, None, None)


def _refuse(ctx, *grads):
    raise RuntimeError('upsampled_cross_entropy has no gradient of its gradient; '
                       'mmseg_encstdc.ops.upsampled_cross_entropy_reference takes '
                       'the same arguments and has one')


backend.define(
    'upsampled_cross_entropy(Tensor logits, Tensor labels, bool align_corners, '
    'int ignore_index) -> (Tensor losses, Tensor hits, Tensor logsumexp)',
    _forward, _forward_fake, _gradient, _keep)
backend.define(
    'upsampled_cross_entropy_backward(Tensor grad, Tensor logits, Tensor labels, '
    'Tensor logsumexp, bool align_corners, int ignore_index) -> Tensor',
    _backward, _backward_fake, _refuse)


# --- The self-check -----------------------------------------------------------


def _example(dtype: torch.dtype) -> Tuple[Tensor, ...]:
    """Make a gradient (B, H, W), logits (B, C, h, w) and labels (B, H, W)."""
    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(2, 21, 35, generator=generator)
    logits = 3 * torch.randn(2, 7, 5, 6, generator=generator)
    labels = torch.randint(8, (2, 21, 35), generator=generator)  # 7 is ignored
    return grad, logits.to(dtype), labels


def _outputs(module, grad, logits, labels) -> Dict[str, Tensor]:
    """Compute losses, hits and gradients for both values of ``align_corners``."""
    found = []
    for align_corners in (False, True):
        losses, hits, logsumexp = module.forward(logits, labels, align_corners, 7)
        found.append((losses, hits, module.backward(
            grad, logits, labels, logsumexp, align_corners, 7)))
    return {name: torch.stack(values) for name, values in zip(
        ('losses', 'hits', 'grad_logits'), zip(*found))}


backend.OPERATORS['upsampled_cross_entropy'] = backend.Operator(
    'upsampled_cross_entropy',
    {'torch': f'{__name__}.bands', 'triton': f'{__name__}.triton'},
    _example, _outputs, {
        dtype: dict(losses=1e-6, hits=0, grad_logits=limit) for dtype, limit in (
            (torch.float32, 1e-5), (torch.float16, 1e-3), (torch.bfloat16, 8e-3))})
