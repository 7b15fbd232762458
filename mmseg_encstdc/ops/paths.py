"""Which implementation computes: matrix products, or the CUDA kernels.

Path A (``torch``, in ``tiles``) runs everywhere. Path B (``cuda``, the kernels
in the repository's folder ops/) runs on a CUDA device when the package was
built with them. ``MMSEG_ENCSTDC_ENCODE``, read at every call, chooses:

    auto    path B where it can run and has tensor cores to use, else A
    torch   path A
    cuda    path B; a RuntimeError where it cannot run
"""
import os
from functools import cache
from importlib.util import find_spec
from typing import Optional, Tuple

import torch
from torch import Tensor

from . import tiles

__all__ = [
    'PATHS', 'VARIABLE', 'backward', 'chosen', 'extension', 'forward',
    'keeps_distances'
]

VARIABLE = 'MMSEG_ENCSTDC_ENCODE'
PATHS = ('auto', 'torch', 'cuda')
EXTENSION = 'mmseg_encstdc._cuda'
# Compute capability from which tensor cores take float32 and bfloat16; below
# it the kernels are right, but slower than path A.
TENSOR_CORES = (8, 0)
BUILD = ('pip install --no-build-isolation . from a checkout, with nvcc and the '
         'CUDA build of PyTorch')


def forward(x: Tensor, codewords: Tensor, scale: Tensor,
            keep: bool) -> Tuple[Tensor, Tensor]:
    """Encodings (B, K, D) of features (B, D, N), any strides, and distances.

    The distances are (B, K, N) with ``keep``, which is for path A, and (B, K, 0)
    without.
    """
    path = chosen(x, codewords)
    if path == 'cuda' and not keep:
        encodings = extension().encode(x, codewords, scale)
        return encodings, encodings.new_empty(*encodings.shape[:2], 0)
    return tiles.encode_forward(x, codewords, scale, keep)


def backward(grad: Tensor, x: Tensor, codewords: Tensor, scale: Tensor,
             distances: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (B, D, N), codewords (K, D) and scale (K, )."""
    if chosen(x, codewords) == 'cuda':
        return extension().encode_backward(grad, x, codewords, scale)
    return tiles.encode_backward(grad, x, codewords, scale, distances)


def keeps_distances(device: torch.device) -> bool:
    """Whether the forward pass should keep distances for the backward pass.

    On a CPU a product costs more than K / D of x does; on a GPU it does not,
    and either path may take the backward pass.
    """
    return device.type == 'cpu'


def chosen(x: Tensor, codewords: Tensor) -> str:
    """``torch`` or ``cuda``: who computes features (B, D, N).

    Raises:
        ValueError: when the variable names no path.
        RuntimeError: when it asks for ``cuda`` where that cannot run, with
            the reason.
    """
    asked = os.environ.get(VARIABLE) or 'auto'
    if asked not in PATHS:
        raise ValueError(f'{VARIABLE}={asked} names no path; give one of '
                         f'{", ".join(PATHS)}')
    if asked == 'torch' or x.numel() == 0:
        return 'torch'
    reason = _why_not(x, codewords, must=asked == 'cuda')
    if asked == 'cuda' and reason:
        raise RuntimeError(f'{VARIABLE}=cuda, but {reason}')
    return 'torch' if reason else 'cuda'


@cache
def extension() -> Optional[object]:
    """The operators ``encode``, ``encode_backward`` and ``supports`` of the
    compiled kernels; None where the package was built without them."""
    found = find_spec(EXTENSION)
    if found is None:
        return None
    torch.ops.load_library(found.origin)
    return torch.ops.mmseg_encstdc_cuda


def _why_not(x: Tensor, codewords: Tensor, must: bool) -> Optional[str]:
    """Why path B does not compute this; None when it does."""
    if not x.is_cuda:
        return f'x is on {x.device}'
    if x.dtype == torch.float64:
        return 'x is float64'
    if extension() is None:
        _tell_how_to_build()
        return f'the kernels are not built: {BUILD}'
    if not must and torch.cuda.get_device_capability(x.device) < TENSOR_CORES:
        return 'the GPU has no tensor cores for these types'
    if not extension().supports(x, codewords):
        return (f'the kernels do not take x {tuple(x.shape)} and codewords '
                f'{tuple(codewords.shape)} on this GPU')
    return None


@cache
def _tell_how_to_build() -> None:
    """One INFO line."""
    from mmengine.logging import print_log
    print_log('Encoding runs without its CUDA kernels, which are faster; to '
              f'build them: {BUILD}', logger='current', level=20)
