"""The Encoding operator as matrix products over tiles of features.

A tile is a run of feature vectors small enough to stay in the cache: x comes
from memory once forward and once backward, and nothing as large as x exists
beside it. In a tile

    d = |x|^2 - 2 C x + |c|^2        (distances, 1 product)
    E = A x^T - (sum_i A_i) * C      (encodings, 1 product)

where d is taken about the mean codeword, lest |x|^2 swamps the distances of
features and codewords that share a large offset; what is linear in x needs no
such care. The forward pass hands the distances on, K numbers for the D of a
feature, so that the backward pass has 4 products of the same size, not 5.
"""
from typing import Iterator, Tuple

import torch
from torch import Tensor

__all__ = ['encode_backward', 'encode_forward']

# Bytes of a tile: on a CPU what the caches hold beside the products, and
# elsewhere what keeps the device busy.
TILE_BYTES = 4 << 20
DEVICE_TILE_BYTES = 64 << 20
# Features in a tile at least, so that the products have something to do.
LEAST = 16


def encode_forward(x: Tensor, codewords: Tensor,
                   scale: Tensor) -> Tuple[Tensor, Tensor]:
    """Encodings (B, K, D) and distances (B, K, N) of features (B, D, N)."""
    batch, (k, d) = x.size(0), codewords.shape
    mean = codewords.mean(0)  # (D, )
    centred = codewords - mean  # (K, D)
    norms = centred.square().sum(1, keepdim=True)  # (K, 1)
    minus_twice = (-2 * centred).expand(batch, k, d)
    distances = codewords.new_empty(batch, k, x.size(2))
    gathered = codewords.new_zeros(batch, d, k)  # sum_i x_i A_i
    mass = codewords.new_zeros(batch, k, 1)  # sum_i A_i
    for images, window in tiles(x, codewords):
        tile = x[images, :, window] - mean.unsqueeze(1)  # (b, D, n)
        distance = distances[images, :, window]  # (b, K, n)
        add_product(distance, minus_twice[images], tile, beta=0)
        distance += squared_norms(tile) + norms
        assignment = (distance * scale.unsqueeze(1)).softmax(1)  # (b, K, n)
        add_product(gathered[images], tile, assignment.transpose(1, 2))
        mass[images] += assignment.sum(2, keepdim=True)
    encodings = gathered.transpose(1, 2).contiguous()
    return encodings.sub_(mass * centred), distances


def encode_backward(grad: Tensor, x: Tensor, codewords: Tensor, scale: Tensor,
                    distances: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (B, D, N), codewords (K, D) and scale (K, ).

    With G = ``grad`` (B, K, D), per feature: dA_k = G_k (x - c_k),
    dl = A (dA - A dA), ds = sum dl d,
    dx = A G + 2 (sum_k s_k dl_k) x - 2 (s dl) C, and
    dC = -a G - 2 s (dl x - (sum dl) C).
    """
    batch, (k, d) = x.size(0), codewords.shape
    steepness = scale.unsqueeze(1)  # (K, 1)
    offset = (grad * codewords).sum(2, keepdim=True)  # (B, K, 1)
    back = torch.cat([grad, (-2 * codewords).expand(batch, k, d)], 1)
    back = back.transpose(1, 2)  # (B, D, 2K)
    grad_x = torch.empty_like(x)
    grad_scale = torch.zeros_like(scale)
    pulled = codewords.new_zeros(batch, d, k)  # sum_i x_i dl_i
    pull = codewords.new_zeros(batch, k, 1)  # sum_i dl_i
    mass = codewords.new_zeros(batch, k, 1)  # sum_i A_i
    for images, window in tiles(x, codewords):
        tile = x[images, :, window].to(codewords.dtype)  # (b, D, n)
        distance = distances[images, :, window]  # (b, K, n)
        assignment = (distance * steepness).softmax(1)
        grad_a = torch.empty_like(assignment)
        add_product(grad_a, grad[images], tile, beta=0)
        grad_a -= offset[images]
        grad_a -= (assignment * grad_a).sum(1, keepdim=True)
        grad_l = grad_a.mul_(assignment)
        grad_scale += (grad_l * distance).sum((0, 2))
        add_product(pulled[images], tile, grad_l.transpose(1, 2))
        pull[images] += grad_l.sum(2, keepdim=True)
        mass[images] += assignment.sum(2, keepdim=True)
        grad_d = grad_l.mul_(steepness)
        target = grad_x[images, :, window]
        moved = target if x.dtype == tile.dtype else tile
        torch.mul(tile, 2 * grad_d.sum(1, keepdim=True), out=moved)
        add_product(moved, back[images], torch.cat([assignment, grad_d], 1))
        if moved is not target:
            target.copy_(moved)
    grad_codewords = -(mass * grad).sum(0) - 2 * steepness * (
        pulled.transpose(1, 2) - pull * codewords).sum(0)
    return grad_x, grad_codewords, grad_scale


def tiles(x: Tensor, codewords: Tensor) -> Iterator[Tuple[slice, slice]]:
    """Cut x (B, D, N): slices of B and N, several images or a part of one."""
    batch, channels, count = x.shape
    budget = TILE_BYTES if x.device.type == 'cpu' else DEVICE_TILE_BYTES
    fit = max(budget // (channels * codewords.element_size()), LEAST)
    images = max(fit // max(count, 1), 1)
    for first in range(0, batch, images):
        for start in range(0, count, fit):
            yield (slice(first, min(first + images, batch)),
                   slice(start, min(start + fit, count)))


def add_product(total: Tensor, left: Tensor, right: Tensor, beta=1) -> None:
    """Make ``total`` beta total + left right, all of them (b, ., .).

    On a CPU image by image: a batched product gives each image one thread,
    and takes a detour where ``total`` is a window of something larger.
    """
    if total.device.type != 'cpu':
        total.baddbmm_(left, right, beta=beta)
        return
    for image, one, other in zip(total, left, right):
        image.addmm_(one, other, beta=beta)


def squared_norms(tile: Tensor) -> Tensor:
    """(b, 1, n) of (b, D, n)."""
    return tile.square().sum(1, keepdim=True)
