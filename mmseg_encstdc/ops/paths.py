"""Which implementation computes: plain PyTorch, or the CUDA kernels.

Path A (``torch``) runs everywhere: matrix products for the Encoding operator
(``tiles``), bands of rows for the upsampled cross entropy (``bands``). Path B
(``cuda``, the kernels in the repository's folder ops/) runs on a CUDA device when
the package was built with them. A variable for each, ``MMSEG_ENCSTDC_ENCODE`` and
``MMSEG_ENCSTDC_CROSS_ENTROPY``, read at every call, chooses:

    auto    path B where it can run and pays, else A
    torch   path A
    cuda    path B; a RuntimeError where it cannot run
"""
import os
from functools import cache
from importlib.util import find_spec
from typing import Callable, Optional, Tuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import bands, tiles

__all__ = [
    'CROSS_ENTROPY', 'PATHS', 'VARIABLE', 'backward', 'chosen', 'chosen_for_loss',
    'cross_entropy', 'cross_entropy_backward', 'extension', 'forward',
    'in_forward_mode', 'keeps_distances'
]

VARIABLE = 'MMSEG_ENCSTDC_ENCODE'
CROSS_ENTROPY = 'MMSEG_ENCSTDC_CROSS_ENTROPY'
PATHS = ('auto', 'torch', 'cuda')
EXTENSION = 'mmseg_encstdc._cuda'
# Compute capability from which tensor cores take float32 and bfloat16; below
# it the Encoding kernels are right, but slower than path A.
TENSOR_CORES = (8, 0)
BUILD = ('pip install --no-build-isolation . from a checkout, with nvcc and the '
         'CUDA build of PyTorch')

# --- The Encoding operator -----------------------------------------------------


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
    """``torch`` or ``cuda``: who computes encodings of features (B, D, N).

    Raises:
        ValueError: when the variable names no path.
        RuntimeError: when it asks for ``cuda`` where that cannot run, with
            the reason.
    """
    return _choose(
        VARIABLE, 'x', x, least=TENSOR_CORES,
        supported=lambda: extension().supports(x, codewords),
        described=lambda: f'x {tuple(x.shape)} and codewords '
                          f'{tuple(codewords.shape)}')


# --- The upsampled cross entropy -------------------------------------------------


def cross_entropy(logits: Tensor, labels: Tensor, align_corners: bool,
                  ignore_index: int) -> Tuple[Tensor, Tensor, Tensor]:
    """Losses, hits and normalisers (B, H, W) of logits (B, C, h, w)."""
    path = chosen_for_loss(logits, labels)
    compute = (extension().cross_entropy if path == 'cuda' else bands.forward)
    return compute(logits, labels, align_corners, ignore_index)


def cross_entropy_backward(grad: Tensor, logits: Tensor, labels: Tensor,
                           normalisers: Tensor, align_corners: bool,
                           ignore_index: int) -> Tensor:
    """Gradient of logits (B, C, h, w), for that of the losses (B, H, W)."""
    path = chosen_for_loss(logits, labels)
    compute = (extension().cross_entropy_backward if path == 'cuda'
               else bands.backward)
    return compute(grad, logits, labels, normalisers, align_corners,
                   ignore_index)


def chosen_for_loss(logits: Tensor, labels: Tensor) -> str:
    """``torch`` or ``cuda``, as :func:`chosen`, for logits (B, C, h, w)."""
    return _choose(
        CROSS_ENTROPY, 'the tensor of logits', logits, least=(7, 0),
        supported=lambda: extension().supports_cross_entropy(logits, labels),
        described=lambda: f'logits {tuple(logits.shape)} and labels '
                          f'{tuple(labels.shape)}')


def in_forward_mode(*arguments: Tensor) -> bool:
    """Whether forward-mode differentiation has a tangent of an argument."""
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(value).tangent is not None
               for value in arguments)


# --- The choice ------------------------------------------------------------------


def _choose(variable: str, name: str, x: Tensor, least: Tuple[int, int],
            supported: Callable[[], bool],
            described: Callable[[], str]) -> str:
    """The path for ``x``, called ``name``, on a GPU of at least that capability."""
    asked = os.environ.get(variable) or 'auto'
    if asked not in PATHS:
        raise ValueError(f'{variable}={asked} names no path; give one of '
                         f'{", ".join(PATHS)}')
    if asked == 'torch' or x.numel() == 0:
        return 'torch'
    reason = _why_not(name, x, least if asked == 'auto' else None, supported,
                      described)
    if asked == 'cuda' and reason:
        raise RuntimeError(f'{variable}=cuda, but {reason}')
    return 'torch' if reason else 'cuda'


def _why_not(name: str, x: Tensor, least: Optional[Tuple[int, int]],
             supported: Callable[[], bool],
             described: Callable[[], str]) -> Optional[str]:
    """Why path B does not compute this; None when it does."""
    if not x.is_cuda:
        return f'{name} is on {x.device}'
    if x.dtype == torch.float64:
        return f'{name} is float64'
    if extension() is None:
        _tell_how_to_build()
        return f'the kernels are not built: {BUILD}'
    if least and torch.cuda.get_device_capability(x.device) < least:
        return 'the GPU has no tensor cores for these types'
    if not supported():
        return f'the kernels do not take {described()} on this GPU'
    return None


@cache
def extension() -> Optional[object]:
    """The compiled kernels as operators (ops/binding.cpp); None where the package
    was built without them."""
    found = find_spec(EXTENSION)
    if found is None:
        return None
    torch.ops.load_library(found.origin)
    return torch.ops.mmseg_encstdc_cuda


@cache
def _tell_how_to_build() -> None:
    """One INFO line."""
    from mmengine.logging import print_log
    print_log('running without the CUDA kernels, which are faster; to '
              f'build them: {BUILD}', logger='current', level=20)
