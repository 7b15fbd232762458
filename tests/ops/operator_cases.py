"""Inputs, expected outputs and tolerances of the Encoding operator."""
import torch

from mmseg_encstdc.ops import encode_reference

TYPES = (torch.float32, torch.float16, torch.bfloat16)  # as encode.h has them

# Tolerances of the kernels: largest error divided by the largest value, against the
# formula in float64 on the same features. The gradient of x is in the type of x.
# For bfloat16 the assignments and gradients are rounded to bfloat16 too, for float16
# to tf32.
FORMULA = {
    torch.float32: dict(encodings=2e-6, grad_x=5e-6, codewords=2e-6, scale=1e-5),
    torch.float16: dict(encodings=2e-6, grad_x=1e-3, codewords=2e-6, scale=1e-5),
    torch.bfloat16: dict(encodings=8e-3, grad_x=1.5e-2, codewords=8e-3,
                         scale=2e-2),
}
# The twin differs in the order of sums only, which may round an operand differently.
TWIN = {
    torch.float32: dict(encodings=1e-6, grad_x=2e-6, codewords=1e-6, scale=1e-5),
    torch.float16: dict(encodings=1e-6, grad_x=1e-3, codewords=1e-6, scale=1e-5),
    torch.bfloat16: dict(encodings=1e-3, grad_x=8e-3, codewords=1e-3, scale=1e-2),
}

# Of (B, D, N).
LAYOUTS = {
    'contiguous': lambda x: x.contiguous(),
    'channels_last': lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    'sliced features': lambda x: x.repeat_interleave(2, dim=2)[..., ::2],
    'sliced channels': lambda x: torch.cat([x, x], 1)[:, :x.size(1)],
    'shifted by one': lambda x: torch.cat([x[..., :1], x], 2)[..., 1:],
    'broadcast over the batch': lambda x: x[:1].expand_as(x),
}


def draw(batch, channels, features, codes, dtype, seed=0, offset=0.0):
    """Draw x (B, D, N), codewords (K, D), scale (K, ) and a gradient (B, K, D).

    Distances are near 1.25 D, and no assignment saturates at this scale.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator)

    return ((normal(batch, channels, features) + offset).to(dtype),
            normal(codes, channels) / 2 + offset,
            -4 / channels * torch.rand(codes, generator=generator),
            normal(batch, codes, channels))


def formula(x, codewords, scale, grad):
    """Return encodings and gradients by encode_reference, in float64."""
    leaves = [value.double().clone().requires_grad_()
              for value in (x, codewords, scale)]
    out = encode_reference(*leaves)
    grad_x, *rest = torch.autograd.grad(out, leaves, grad.double())
    return [out.detach(), grad_x, *rest]


def assert_agree(got, expected, tolerance, inputs):
    """Compare encodings and gradients, relative to the largest value.

    If the terms of a sum cancel, the error is relative to the terms.
    """
    x, codewords, _, grad = inputs
    apart = x.double().abs().amax()**2 + codewords.double().abs().amax()**2
    terms = dict(encodings=0, grad_x=0, codewords=grad.abs().amax() / 10,
                 scale=grad.abs().sum(2).amax() * x.abs().amax() * apart)
    for (name, limit), value, exact in zip(tolerance.items(), got, expected):
        assert value.shape == exact.shape
        largest = max(exact.abs().max().item(), float(terms[name]), 1e-3)
        error = (value.double() - exact.double()).abs().max().item()
        assert error <= limit * largest, f'{name}: {error / largest:.1e}'
