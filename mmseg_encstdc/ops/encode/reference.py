"""The Encoding operator in standard PyTorch operators.

Export and second derivatives use it, and tests compare with it.
"""
import torch
from torch import Tensor

from .arguments import check_arguments

__all__ = ['encode_composite', 'encode_reference']


def encode_composite(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """Encode x (B, D, N) or (B, D, H, W) as :func:`encode` does.

    Use it for an exporter that supports standard operators only, and for gradients
    of gradients. It keeps all intermediate tensors for the backward pass.

    Raises:
        ValueError, TypeError: as :func:`encode`.
    """
    if not torch.jit.is_tracing():  # tracing warns of each comparison of sizes
        check_arguments(x, codewords, scale)
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return encode_composite(x, codewords, scale)
    rows = x.flatten(2).to(codewords.dtype).transpose(1, 2)  # (B, N, D)
    mean = codewords.mean(0)  # (D, )
    rows, centred = rows - mean, codewords - mean
    distances = (
        rows.square().sum(2, keepdim=True) - 2 * rows @ centred.t() +
        centred.square().sum(1))  # (B, N, K)
    assignment = (scale * distances).softmax(2)  # (B, N, K)
    assignment_sum = assignment.sum(1).unsqueeze(2)  # (B, K, 1)
    return assignment.transpose(1, 2) @ rows - assignment_sum * centred


def encode_reference(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """Encode x (B, D, N) or (B, D, H, W) by the formula of the paper.

    It is for tests: its residuals are a tensor (B, N, K, D).

    Raises:
        ValueError, TypeError: as :func:`encode`.
    """
    check_arguments(x, codewords, scale)
    rows = x.flatten(2).transpose(1, 2).to(codewords.dtype)  # (B, N, D)
    residuals = rows.unsqueeze(2) - codewords  # (B, N, K, D)
    assignment = (scale * residuals.square().sum(3)).softmax(2)  # (B, N, K)
    return (assignment.unsqueeze(3) * residuals).sum(1)
