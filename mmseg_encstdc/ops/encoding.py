"""The Encoding operator of EncNet (section 3, eq. 1 and 2).

With residuals r_ik = x_i - c_k and assignments
a_i. = softmax_k(s_k |r_ik|^2), the encoding is e_k = sum_i a_ik r_ik.

``encode`` checks its arguments, views x as (B, D, N) and calls one
operator, ``mmseg_encstdc::encode``, whose schema, fake and gradient stand
below. ``encode_composite`` is the same in standard operators, for ONNX, and
``encode_reference`` spells the formula out, for tests.
"""
import torch
from torch import Tensor

from . import paths

__all__ = ['encode', 'encode_composite', 'encode_reference']

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
MAX_CODES = 256


def encode(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """Encode features around codewords.

    Memory beside the arguments is a tile of x, the result and, on a CPU, the
    distances (B, K, N), which wait for the backward pass; the gradient of x is
    the one tensor as large as x. A map (B, D, H, W) whose rows are not evenly
    spaced, such as a crop, is copied. ``paths`` says who computes: CUDA kernels
    or matrix products.

    float32 rounds off about 1e-7 * |scale| * the largest squared distance to
    the mean codeword, in the exponent of an assignment. Forward-mode
    differentiation goes through :func:`encode_composite`; gradients of gradients
    are a RuntimeError.

    Args:
        x (Tensor): features, (B, N, D) or (B, D, H, W) with N = H * W, of
            any strides; float64, float32, bfloat16 or float16.
        codewords (Tensor): (K, D), 1 <= K <= 256; float32, or float64 for
            float64 features.
        scale (Tensor): smoothing factor of each codeword, (K, ), in the type
            of the codewords.

    Returns:
        Tensor: (B, K, D) in the codewords' type. Zeros where N is 0.

    Raises:
        ValueError: for a shape or device that does not fit, naming the
            argument, what it has and what is accepted.
        TypeError: likewise for a type.
    """
    if not torch.jit.is_tracing():  # which warns of every comparison of sizes
        check_arguments(x, codewords, scale)
    columns = as_columns(x)
    if torch.onnx.is_in_onnx_export() or paths.in_forward_mode(
            x, codewords, scale):
        return encode_composite(columns, codewords, scale)
    keep = paths.keeps_distances(x.device) and _needs_gradient(
        x, codewords, scale)
    return torch.ops.mmseg_encstdc.encode(columns, codewords, scale, keep)[0]


def _needs_gradient(*arguments: Tensor) -> bool:
    """Whether a backward pass may follow; a trace is to hold for both."""
    return torch.is_grad_enabled() and not torch.jit.is_tracing() and any(
        value.requires_grad for value in arguments)


def check_arguments(x: Tensor, codewords: Tensor, scale: Tensor) -> None:
    """Raise ValueError or TypeError unless the arguments fit together."""
    for name, value in (('x', x), ('codewords', codewords), ('scale', scale)):
        if not isinstance(value, Tensor):
            raise TypeError(f'{name} must be a tensor, got a '
                            f'{type(value).__name__}')
        if value.is_nested or value.layout != torch.strided:
            kind = 'nested' if value.is_nested else value.layout
            raise TypeError(f'{name} must be a dense tensor, got one that is '
                            f'{kind}')
    if x.dim() not in (3, 4):
        raise ValueError('x must be (B, N, D) or (B, D, H, W), got '
                         f'{tuple(x.shape)}')
    if codewords.dim() != 2 or not 1 <= codewords.size(0) <= MAX_CODES:
        raise ValueError(f'codewords must be (K, D) with 1 <= K <= {MAX_CODES},'
                         f' got {tuple(codewords.shape)}')
    k, d = codewords.shape
    if scale.shape != (k, ):
        raise ValueError(f'scale must be ({k},) for codewords ({k}, {d}), got '
                         f'{tuple(scale.shape)}')
    channels = x.size(1) if x.dim() == 4 else x.size(2)
    if channels != d or d == 0:
        raise ValueError(f'x {tuple(x.shape)} has {channels} channels and '
                         f'codewords ({k}, {d}) have {d}; they must be equal '
                         'and at least 1')
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    if x.dtype not in FLOATS:
        raise TypeError('x must be float64, float32, bfloat16 or float16, got '
                        f'{x.dtype}')
    for name, value in (('codewords', codewords), ('scale', scale)):
        if value.dtype != wide:
            raise TypeError(f'{name} must be {wide} for x of {x.dtype}, got '
                            f'{value.dtype}')
        if value.device != x.device:
            raise ValueError(f'{name} is on {value.device} and x on '
                             f'{x.device}; they must be on one device')


def as_columns(x: Tensor) -> Tensor:
    """(B, N, D) or (B, D, H, W) as (B, D, N), without transposing memory."""
    return x.flatten(2) if x.dim() == 4 else x.transpose(1, 2)


# --- The operator: schema, implementation, fake, gradient --------------------

# Defined rather than torch.library.custom_op, whose first call would import
# the whole of torch.compile.
torch.library.define(
    'mmseg_encstdc::encode',
    '(Tensor x, Tensor codewords, Tensor scale, bool keep) -> '
    '(Tensor encodings, Tensor distances)', tags=torch.Tag.pt2_compliant_tag)
torch.library.define(
    'mmseg_encstdc::encode_backward',
    '(Tensor grad, Tensor x, Tensor codewords, Tensor scale, Tensor distances)'
    ' -> (Tensor grad_x, Tensor grad_codewords, Tensor grad_scale)',
    tags=torch.Tag.pt2_compliant_tag)


@torch.library.impl('mmseg_encstdc::encode', 'default')
def _encode(x, codewords, scale, keep):
    if scale.shape != codewords.shape[:1] or x.size(1) != codewords.size(1):
        check_arguments(x.transpose(1, 2), codewords, scale)  # after a trace
    with torch.autocast(x.device.type, enabled=False):
        return paths.forward(x, codewords, scale, keep)


@torch.library.impl('mmseg_encstdc::encode_backward', 'default')
def _encode_backward(grad, x, codewords, scale, distances):
    with torch.autocast(x.device.type, enabled=False):
        return paths.backward(grad, x, codewords, scale, distances)


@torch.library.register_fake('mmseg_encstdc::encode')
def _(x, codewords, scale, keep):
    batch, (k, d) = x.size(0), codewords.shape
    return (codewords.new_empty(batch, k, d),
            codewords.new_empty(batch, k, x.size(2) if keep else 0))


@torch.library.register_fake('mmseg_encstdc::encode_backward')
def _(grad, x, codewords, scale, distances):
    return (torch.empty_like(x), torch.empty_like(codewords),
            torch.empty_like(scale))


def _setup_context(ctx, inputs, output):
    _, distances = output
    ctx.mark_non_differentiable(distances)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:3], distances)


def _gradient(ctx, grad, _):
    if grad is None:
        return None, None, None, None
    return (*torch.ops.mmseg_encstdc.encode_backward(grad, *ctx.saved_tensors),
            None)


torch.library.register_autograd(
    'mmseg_encstdc::encode', _gradient, setup_context=_setup_context)


def _refuse(ctx, *grads):
    raise RuntimeError('encode has no gradient of its gradient; for that, call '
                       'mmseg_encstdc.ops.encode_composite')


torch.library.register_autograd('mmseg_encstdc::encode_backward', _refuse)


# --- The same without the operator -------------------------------------------


def encode_composite(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """:func:`encode` of (B, D, N) as standard operators, for export."""
    rows = x.to(codewords.dtype).transpose(1, 2)  # (B, N, D)
    mean = codewords.mean(0)
    rows, centred = rows - mean, codewords - mean
    distances = (
        rows.square().sum(2, keepdim=True) - 2 * rows @ centred.t() +
        centred.square().sum(1))  # (B, N, K)
    assignment = (scale * distances).softmax(2)
    mass = assignment.sum(1).unsqueeze(2)  # (B, K, 1)
    return assignment.transpose(1, 2) @ rows - mass * centred


def encode_reference(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """:func:`encode` spelled out, with B x N x K x D residuals.

    The twin that tests compare with; too large for anything else.
    """
    check_arguments(x, codewords, scale)
    rows = as_columns(x).transpose(1, 2).to(codewords.dtype)  # (B, N, D)
    residuals = rows.unsqueeze(2) - codewords  # (B, N, K, D)
    assignment = (scale * residuals.square().sum(3)).softmax(2)  # (B, N, K)
    return (assignment.unsqueeze(3) * residuals).sum(1)
