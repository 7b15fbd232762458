"""The Encoding operator as matrix products over tiles of features.

A tile is a run of feature vectors that fits the cache: all that reads it
reads it there, so x comes from memory once forward and once backward, and
nothing as large as x exists beside it. In a tile

    d = |x|^2 - 2 C x + |c|^2        (distances, 1 product)
    E = A x^T - (sum_i A_i) * C      (encodings, 1 product)

on features and codewords both moved by the mean codeword. Residuals and
distances do not notice, but |x|^2 no longer swamps the distances where
features and codewords share a large offset. The backward pass recomputes the
assignments rather than keep them: 5 products of the same size.
"""
from typing import Iterator, Tuple

import torch
from torch import Tensor

__all__ = ['encode_backward', 'encode_forward']

# Bytes of a tile: what a core's second-level cache holds beside the products.
TILE_BYTES = 1 << 20
# Features in a tile at least, so that the products have something to do.
LEAST = 16


def encode_forward(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """Encodings (B, K, D) of features (B, D, N), any strides."""
    mean = codewords.mean(0)  # (D, )
    centred = codewords - mean  # (K, D)
    norms = centred.square().sum(1, keepdim=True)  # (K, 1)
    batch, (k, d) = x.size(0), codewords.shape
    encodings = codewords.new_zeros(batch, k, d)
    mass = codewords.new_zeros(batch, k, 1)
    for _, tile in tiles(x, mean):
        distances = torch.matmul(centred, tile).mul_(-2)  # (B, K, n)
        distances += squared_norms(tile) + norms
        assignment = distances.mul_(scale.unsqueeze(1)).softmax(1)
        encodings.baddbmm_(assignment, tile.transpose(1, 2))
        mass += assignment.sum(2, keepdim=True)
    return encodings - mass * centred


def encode_backward(grad: Tensor, x: Tensor, codewords: Tensor,
                    scale: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (B, D, N), codewords (K, D) and scale (K, ).

    With G = ``grad`` (B, K, D), per feature: dA_k = G_k (x - c_k),
    dl = A (dA - A dA), ds = sum dl d,
    dx = A G + 2 (sum_k s_k dl_k) x - 2 (s dl) C, and
    dC = -a G - 2 s (dl x - (sum dl) C).
    """
    mean = codewords.mean(0)
    centred = codewords - mean
    norms = centred.square().sum(1, keepdim=True)
    batch, (k, d) = x.size(0), codewords.shape
    steepness = scale.unsqueeze(1)  # (K, 1)
    expanded = centred.expand(batch, k, d)
    into = torch.cat([expanded, grad], 1)  # (B, 2K, D): for d and dA
    back = torch.cat([grad, -2 * expanded], 1).transpose(1, 2)  # (B, D, 2K)
    offset = (grad * centred).sum(2, keepdim=True)  # (B, K, 1)
    grad_x = torch.empty_like(x)
    grad_scale = torch.zeros_like(scale)
    pulled = codewords.new_zeros(batch, k, d)  # sum_i dl_i x_i
    pull = codewords.new_zeros(batch, k, 1)  # sum_i dl_i
    mass = codewords.new_zeros(batch, k, 1)  # sum_i A_i
    for window, tile in tiles(x, mean):
        products = torch.matmul(into, tile)  # (B, 2K, n)
        distances = products[:, :k].mul_(-2)
        distances += squared_norms(tile) + norms
        assignment = (distances * steepness).softmax(1)
        grad_a = products[:, k:].sub_(offset)
        grad_l = assignment * (
            grad_a - (assignment * grad_a).sum(1, keepdim=True))
        grad_scale += (grad_l * distances).sum((0, 2))
        pulled.baddbmm_(grad_l, tile.transpose(1, 2))
        pull += grad_l.sum(2, keepdim=True)
        mass += assignment.sum(2, keepdim=True)
        grad_d = grad_l.mul_(steepness)
        moved = torch.bmm(back, torch.cat([assignment, grad_d], 1))
        moved.addcmul_(tile, grad_d.sum(1, keepdim=True), value=2)
        grad_x[:, :, window] = moved
    grad_codewords = -(mass * grad).sum(0) - 2 * steepness * (
        pulled - pull * centred).sum(0)
    return grad_x, grad_codewords, grad_scale


def tiles(x: Tensor, mean: Tensor) -> Iterator[Tuple[slice, Tensor]]:
    """Windows of N, and the features there less ``mean``: (B, D, n)."""
    batch, channels, count = x.shape
    row = max(batch * channels, 1) * mean.element_size()
    length = max(TILE_BYTES // row, LEAST)
    for start in range(0, count, length):
        window = slice(start, min(start + length, count))
        yield window, x[:, :, window].to(mean.dtype) - mean.unsqueeze(1)


def squared_norms(tile: Tensor) -> Tensor:
    """(B, 1, n) of (B, D, n)."""
    return torch.linalg.vector_norm(tile, dim=1, keepdim=True).square_()
