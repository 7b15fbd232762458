"""Encode features around codewords: EncNet's operator (section 3, eq. 1 and 2).

With residuals r_ik = x_i - c_k and assignments
a_i. = softmax_k(s_k |r_ik|^2), the encoding is e_k = sum_i a_ik r_ik.

``encode`` checks its arguments and calls the operator ``mmseg_encstdc::encode``.
``matmul`` computes it on any device, ``triton`` and ``cuda`` on a GPU; ``backend``
chooses. ``reference`` has the formula in standard operators.
"""
from typing import Dict, Tuple

import torch
from torch import Tensor

from .. import backend
from . import matmul
from .arguments import MAX_CODES, check_arguments
from .reference import encode_composite

__all__ = ['MAX_CODES', 'encode']


def encode(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """Encode features around codewords.

    Besides the result, memory holds a block of x and, on a CPU, the distances
    (B, K, N) for the backward pass. Only the gradient of x is as large as x. The
    torch backend copies a map (B, D, H, W) whose rows are not evenly spaced in
    memory, such as a crop.

    In float32 the rounding error of a logit s_k |r_ik|^2 is about 1e-7 * |scale| *
    the largest squared distance to the mean codeword. Forward-mode differentiation
    uses :func:`encode_composite`. A gradient of a gradient raises RuntimeError.

    Args:
        x: features, (B, D, N) or (B, D, H, W) with N = H * W, of any strides;
            float64, float32, bfloat16 or float16.
        codewords: (K, D), 1 <= K <= 256; float32, or float64 for float64 features.
        scale: smoothing factor of each codeword, (K, ), in the type of the
            codewords.

    Returns:
        Encodings, (B, K, D), in the codewords' type. Zeros where N is 0.

    Raises:
        ValueError, TypeError: when a shape, device or type does not fit, naming
            the argument, its value and what is accepted.
        RuntimeError: when MMSEG_ENCSTDC_BACKEND names a backend that cannot
            compute this, with the reason.
    """
    if not torch.jit.is_tracing():  # tracing warns of each comparison of sizes
        check_arguments(x, codewords, scale)
    if torch.onnx.is_in_onnx_export() or backend.in_forward_mode(
            x, codewords, scale):
        return encode_composite(x, codewords, scale)
    if _keeps_distances(x, codewords, scale):
        return torch.ops.mmseg_encstdc.encode_with_distances(
            x, codewords, scale)[0]
    return torch.ops.mmseg_encstdc.encode(x, codewords, scale)


def _keeps_distances(*arguments: Tensor) -> bool:
    """Return whether to keep the distances, K / D of the size of x, for backward.

    A CPU takes longer to compute them again than to keep them; a GPU does not. A
    trace keeps none, because it may run with or without gradients.
    """
    return (not backend.accelerated(arguments[0].device)
            and backend.requested() in ('auto', 'torch')
            and torch.is_grad_enabled() and not torch.jit.is_tracing()
            and any(value.requires_grad for value in arguments))


# --- The operators: schema, implementation, fake, gradient --------------------


def _encode(x, codewords, scale):
    check_arguments(x, codewords, scale)  # a trace of encode has no checks
    return backend.choose('encode', x, codewords).forward(
        x, codewords, scale)


def _encode_with_distances(x, codewords, scale):
    return matmul.forward_with_distances(x, codewords, scale)


def _encode_backward(grad, x, codewords, scale, distances=None):
    if distances is not None:
        return matmul.backward(grad, x, codewords, scale, distances)
    return backend.choose('encode', x, codewords).backward(
        grad, x, codewords, scale)


def _encode_fake(x, codewords, scale):
    return codewords.new_empty(x.size(0), *codewords.shape)


def _encode_with_distances_fake(x, codewords, scale):
    distances = codewords.new_empty(
        x.size(0), codewords.size(0), x.shape[2:].numel())
    return _encode_fake(x, codewords, scale), distances


def _encode_backward_fake(grad, x, codewords, scale, distances=None):
    return tuple(map(torch.empty_like, (x, codewords, scale)))


def _keep(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs)


def _keep_distances(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _gradient(ctx, grad, *_):
    if grad is None:
        return None, None, None
    return torch.ops.mmseg_encstdc.encode_backward(grad, *ctx.saved_tensors)


def _refuse(ctx, *grads):
    raise RuntimeError('encode has no gradient of its gradient; '
                       'mmseg_encstdc.ops.encode_composite takes the same '
                       'arguments and has one')


_ARGUMENTS = 'Tensor x, Tensor codewords, Tensor scale'
backend.define(f'encode({_ARGUMENTS}) -> Tensor', _encode, _encode_fake, _gradient,
               _keep)
backend.define(f'encode_with_distances({_ARGUMENTS}) -> (Tensor, Tensor distances)',
               _encode_with_distances, _encode_with_distances_fake, _gradient,
               _keep_distances)
backend.define(f'encode_backward(Tensor grad, {_ARGUMENTS}, Tensor? distances=None) '
               '-> (Tensor grad_x, Tensor grad_codewords, Tensor grad_scale)',
               _encode_backward, _encode_backward_fake, _refuse)


# --- The self-check -----------------------------------------------------------


def _example(dtype: torch.dtype) -> Tuple[Tensor, ...]:
    """Make a gradient (B, K, D), x (B, D, N), codewords (K, D) and scale (K, )."""
    generator = torch.Generator().manual_seed(0)
    batch, codes, channels, features = 2, 5, 37, 91
    grad, x, codewords = (torch.randn(shape, generator=generator) for shape in (
        (batch, codes, channels), (batch, channels, features), (codes, channels)))
    scale = -4 / channels * torch.rand(codes, generator=generator)
    return grad, x.to(dtype), codewords / 2, scale


def _outputs(module, grad, x, codewords, scale) -> Dict[str, Tensor]:
    """Compute the encodings and all gradients by a backend's module."""
    encodings = module.forward(x, codewords, scale)
    gradients = module.backward(grad, x, codewords, scale)
    return dict(zip(OUTPUTS, (encodings, *gradients)))


OUTPUTS = ('encodings', 'grad_x', 'grad_codewords', 'grad_scale')
backend.OPERATORS['encode'] = backend.Operator(
    'encode', {'torch': f'{__name__}.matmul', 'triton': f'{__name__}.triton',
               'cuda': f'{__name__}.cuda'}, _example, _outputs, {
        # 1e-5 because tensor cores may truncate sums.
        torch.float32: dict(zip(OUTPUTS, (1e-5, 1e-5, 1e-5, 1e-4))),
        torch.float16: dict(zip(OUTPUTS, (1e-5, 1e-3, 1e-5, 1e-4))),
        torch.bfloat16: dict(zip(OUTPUTS, (8e-3, 1.5e-2, 8e-3, 2e-2)))})
