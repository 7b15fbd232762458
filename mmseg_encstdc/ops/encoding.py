"""Aggregate local features around codewords (EncNet, section 3, eq. 1 and 2).

With residuals r_ik = x_i - c_k and assignments
a_i. = softmax_k(s_k |r_ik|^2), the encoding is e_k = sum_i a_ik r_ik.
"""
import torch
from torch import Tensor

__all__ = ['encode', 'encode_reference']


def _check(x: Tensor, codewords: Tensor, scale: Tensor) -> None:
    if codewords.dim() != 2 or codewords.size(0) == 0:
        raise ValueError('codewords must be (K, D) with K >= 1, got '
                         f'{tuple(codewords.shape)}')
    k, d = codewords.shape
    if scale.shape != (k, ):
        raise ValueError(
            f'scale must be ({k},) for {k} codewords, got '
            f'{tuple(scale.shape)}')
    if x.dim() not in (3, 4):
        raise ValueError('x must be (B, N, D) or (B, D, H, W), got '
                         f'{tuple(x.shape)}')
    channels = x.size(1) if x.dim() == 4 else x.size(2)
    if channels != d:
        raise ValueError(f'x {tuple(x.shape)} has {channels} channels, the '
                         f'codewords {tuple(codewords.shape)} have {d}')
    if not x.is_floating_point():
        raise TypeError(f'x must be a floating point tensor, got {x.dtype}')


def _as_rows(x: Tensor) -> Tensor:
    """(B, N, D) or (B, D, H, W) as a (B, N, D) view."""
    return x.flatten(2).transpose(1, 2) if x.dim() == 4 else x


def encode(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """Encode features by two matrix products, never forming B x N x K x D.

    d = |x|^2 - 2 X C^T + |c|^2 and E = A^T X - (sum_i A_i) * C. The |x|^2
    term stays: the scales differ per codeword, so the softmax keeps it.

    Args:
        x (Tensor): features, (B, N, D) or (B, D, H, W) with N = H * W.
        codewords (Tensor): (K, D).
        scale (Tensor): smoothing factor of each codeword, (K, ).

    Returns:
        Tensor: (B, K, D) in the codewords' type.

    Raises:
        ValueError: for a shape that does not fit, naming the argument.
        TypeError: when ``x`` holds no floating point numbers.
    """
    _check(x, codewords, scale)
    with torch.autocast(x.device.type, enabled=False):
        rows = _as_rows(x).to(codewords.dtype)  # (B, N, D)
        distances = (
            rows.square().sum(2, keepdim=True) -
            2 * rows @ codewords.t() + codewords.square().sum(1))  # (B, N, K)
        assignment = (scale * distances).softmax(2)  # (B, N, K)
        mass = assignment.sum(1).unsqueeze(2)  # (B, K, 1)
        return assignment.transpose(1, 2) @ rows - mass * codewords


def encode_reference(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """:func:`encode` spelled out, with B x N x K x D residuals.

    The twin that tests compare with; too large for anything else.
    """
    _check(x, codewords, scale)
    rows = _as_rows(x).to(codewords.dtype)
    residuals = rows.unsqueeze(2) - codewords  # (B, N, K, D)
    assignment = (scale * residuals.square().sum(3)).softmax(2)  # (B, N, K)
    return (assignment.unsqueeze(3) * residuals).sum(1)
