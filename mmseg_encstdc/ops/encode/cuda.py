"""Encode by the CUDA C++ extension, whose sources are in ops/."""
from typing import Optional, Tuple

import torch
from torch import Tensor


def forward(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """Return encodings (B, K, D) of x (B, D, N) or (B, D, H, W)."""
    return torch.ops.mmseg_encstdc.encode_cuda(x.flatten(2), codewords, scale)


def backward(grad: Tensor, x: Tensor, codewords: Tensor,
             scale: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, codewords (K, D) and scale (K, )."""
    grad_x, *rest = torch.ops.mmseg_encstdc.encode_cuda_backward(
        grad, x.flatten(2), codewords, scale)
    return (grad_x.view(x.shape), *rest)


def why_not(x: Tensor, codewords: Tensor) -> Optional[str]:
    """Return why the kernels do not accept these tensors, or None."""
    if x.dtype == torch.float64:
        return 'x is float64'
    if not torch.ops.mmseg_encstdc.encode_cuda_supports(x.flatten(2), codewords):
        return (f'the kernels do not take x {tuple(x.shape)} and codewords '
                f'{tuple(codewords.shape)} on this GPU')
    return None
