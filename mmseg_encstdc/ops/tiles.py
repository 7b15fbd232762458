"""The Encoding operator as matrix products over tiles of features.

A tile is a run of feature vectors small enough to stay in the cache: all that
reads it reads it there, so x comes from memory once forward and once backward,
and nothing as large as x exists beside it. In a tile

    d = |x|^2 - 2 C x + |c|^2        (distances, 1 product)
    E = A x^T - (sum_i A_i) * C      (encodings, 1 product)

on features and codewords both moved by the mean codeword. Residuals and
distances do not notice, but |x|^2 no longer swamps the distances where
features and codewords share a large offset. Where the forward pass hands on
the distances, which are K / D of x, it leaves the backward pass 4 products of
the same size rather than 5.
"""
from typing import Iterator, Tuple

import torch
from torch import Tensor

__all__ = ['encode_backward', 'encode_forward']

# Bytes of a tile: on a CPU what its caches hold beside the products, on any
# other device what keeps it busy.
TILE_BYTES = 3 << 20
DEVICE_TILE_BYTES = 64 << 20
# Features of an image in a tile at least, if the image has as many: fewer do
# not fill the products.
LEAST = 256


def encode_forward(x: Tensor, codewords: Tensor, scale: Tensor,
                   keep: bool) -> Tuple[Tensor, Tensor]:
    """Encodings (B, K, D) and distances (B, K, N) of features (B, D, N).

    Without ``keep`` the distances are (B, K, 0).
    """
    batch, (k, d) = x.size(0), codewords.shape
    mean = codewords.mean(0)  # (D, )
    centred = codewords - mean  # (K, D)
    distances = codewords.new_empty(batch, k, x.size(2) if keep else 0)
    gathered = codewords.new_zeros(batch, d, k)  # sum_i x_i A_i
    mass = codewords.new_zeros(batch, k, 1)  # sum_i A_i
    for images, window, tile in tiles(x, mean, k):
        distance = distances_of(tile, centred)  # (b, K, n)
        if keep:
            distances[images, :, window] = distance
        assignment = distance.mul_(scale.unsqueeze(1)).softmax(1)
        gathered[images].baddbmm_(tile, assignment.transpose(1, 2))
        mass[images] += assignment.sum(2, keepdim=True)
    encodings = gathered.transpose(1, 2).contiguous()
    return encodings.sub_(mass * centred), distances


def encode_backward(grad: Tensor, x: Tensor, codewords: Tensor, scale: Tensor,
                    distances: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (B, D, N), codewords (K, D) and scale (K, ).

    Distances (B, K, 0) are computed again. With G = ``grad`` (B, K, D), per
    feature: dA_k = G_k (x - c_k), dl = A (dA - A dA), ds = sum dl d,
    dd = s dl, dx = A G - 2 dd C + 2 (sum_k dd_k) x, and
    dC = -a G - 2 (dd x - (sum dd) C).
    """
    batch, (k, d) = x.size(0), codewords.shape
    mean = codewords.mean(0)  # (D, )
    centred = codewords - mean  # (K, D)
    steepness = scale.unsqueeze(1)  # (K, 1)
    offset = (grad * centred).sum(2, keepdim=True)  # (B, K, 1)
    back = torch.cat([grad, (-2 * centred).expand(batch, k, d)], 1)
    back = back.transpose(1, 2)  # (B, D, 2K)
    grad_x = torch.empty_like(x)
    grad_scale = torch.zeros_like(scale)
    pulled = codewords.new_zeros(batch, d, k)  # sum_i x_i dd_i
    mass = codewords.new_zeros(batch, 2 * k, 1)  # sum_i A_i, sum_i dd_i
    kept = distances.size(2) == x.size(2)
    for images, window, tile in tiles(x, mean, k):
        distance = (distances[images, :, window] if kept else distances_of(
            tile, centred))  # (b, K, n)
        assignment = (distance * steepness).softmax(1)
        grad_a = torch.baddbmm(offset[images], grad[images], tile, beta=-1)
        grad_a -= (assignment * grad_a).sum(1, keepdim=True)
        grad_l = grad_a.mul_(assignment)
        grad_scale += (grad_l * distance).sum((0, 2))
        grad_d = grad_l.mul_(steepness)
        pulled[images].baddbmm_(tile, grad_d.transpose(1, 2))
        weights = torch.cat([assignment, grad_d], 1)  # (b, 2K, n)
        mass[images] += weights.sum(2, keepdim=True)
        tile.mul_(2 * grad_d.sum(1, keepdim=True)).baddbmm_(back[images], weights)
        grad_x[images, :, window] = tile
    pulled = pulled.transpose(1, 2) - mass[:, k:] * centred  # (B, K, D)
    grad_codewords = -(mass[:, :k] * grad + 2 * pulled).sum(0)
    return grad_x, grad_codewords, grad_scale


def distances_of(tile: Tensor, centred: Tensor) -> Tensor:
    """|x - c|^2 (b, K, n) of features (b, D, n) and codewords (K, D)."""
    norms = centred.square().sum(1, keepdim=True)  # (K, 1)
    distance = tile.square().sum(1, keepdim=True) + norms
    return distance.baddbmm_(
        centred.expand(tile.size(0), *centred.shape), tile, alpha=-2)


def tiles(x: Tensor, mean: Tensor,
          codes: int) -> Iterator[Tuple[slice, slice, Tensor]]:
    """Cut x (B, D, N) along B and N.

    Yields where in B, where in N, and the features there less ``mean`` in the
    type of ``mean``, (b, D, n). That is the caller's to write to, until the
    next tile takes its place.
    """
    batch, _, count = x.shape
    images, length = tile_size(x, codes, mean.element_size())
    room = torch.empty_like(x[:images, :, :length], dtype=mean.dtype)
    for first in range(0, batch, images):
        chosen = slice(first, min(first + images, batch))
        for start in range(0, count, length):
            window = slice(start, min(start + length, count))
            part = x[chosen, :, window]
            tile = room[:part.size(0), :, :part.size(2)]
            yield chosen, window, torch.sub(part, mean.unsqueeze(1), out=tile)


def tile_size(x: Tensor, codes: int, itemsize: int) -> Tuple[int, int]:
    """Images of a tile, and features of each.

    What the budget holds is a tile, or its distances where K is above D.

    As many images as there are, if each still gives the products enough to
    do: a thread then stays with its image, and the image with its core.
    """
    batch, channels, count = x.shape
    budget = TILE_BYTES if x.device.type == 'cpu' else DEVICE_TILE_BYTES
    features = max(budget // (max(channels, codes) * itemsize), 1)
    images = max(min(features // max(min(count, LEAST), 1), batch), 1)
    return images, max(features // images, LEAST)
