"""Check the arguments of the Encoding operator."""
import torch
from torch import Tensor

from ..tensors import check_tensors

MAX_CODES = 256


def check_arguments(x: Tensor, codewords: Tensor, scale: Tensor) -> None:
    """Check that x (B, D, N) or (B, D, H, W), codewords (K, D) and scale (K, ) fit.

    Raises:
        ValueError, TypeError: naming the argument, its value and what is accepted.
    """
    check_tensors(x=x, codewords=codewords, scale=scale)
    if x.dim() not in (3, 4):
        raise ValueError('x must be (B, D, N) or (B, D, H, W), got '
                         f'{tuple(x.shape)}')
    if codewords.dim() != 2 or not 1 <= codewords.size(0) <= MAX_CODES:
        raise ValueError(f'codewords must be (K, D) with 1 <= K <= {MAX_CODES},'
                         f' got {tuple(codewords.shape)}')
    k, d = codewords.shape
    if scale.shape != (k, ):
        raise ValueError(f'scale must be ({k},) for codewords ({k}, {d}), got '
                         f'{tuple(scale.shape)}')
    if x.size(1) != d or d == 0:
        raise ValueError(f'x {tuple(x.shape)} has {x.size(1)} channels in dimension '
                         f'1 and codewords ({k}, {d}) have {d}; they must be equal '
                         f'and at least 1{order_hint(x, d)}')
    expected = torch.float64 if x.dtype == torch.float64 else torch.float32
    for name, value in (('codewords', codewords), ('scale', scale)):
        if value.dtype != expected:
            raise TypeError(f'{name} must be {expected} for x of {x.dtype}, got '
                            f'{value.dtype}')


def order_hint(x: Tensor, channels: int) -> str:
    """Return a hint for the error message if the last dimension has the channels."""
    if channels == 0 or x.size(-1) != channels:
        return ''
    order, remedy = (('(B, N, D)', 'transpose(1, 2)') if x.dim() == 3 else
                     ('(B, H, W, D)', 'movedim(3, 1)'))
    return ('. The order is (B, D, N) or (B, D, H, W); for features '
            f'{order} give x.{remedy}')
