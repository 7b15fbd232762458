"""Encode by matrix products over blocks of features, on any device.

A block is a range of feature vectors that fits in the cache. x is read from memory
once forward and once backward. Only its gradient is as large as x. In a block

    d = |x|^2 - 2 C x + |c|^2        (distances, 1 product)
    E = A x^T - (sum_i A_i) * C      (encodings, 1 product)

The mean codeword is subtracted from features x and codewords C. This does not change
residuals and distances, and keeps |x|^2 small if features and codewords have a large
common offset. The backward pass takes 5 products of this size, or 4 if the forward
pass kept the distances, whose size is K / D of x.
"""
from typing import Iterator, Optional, Tuple

import torch
from torch import Tensor

__all__ = ['backward', 'forward', 'forward_with_distances']

# Bytes of a block. On a CPU it fits in the cache with the products; on other devices
# it is large enough to occupy them.
BLOCK_BYTES = 3 << 20
DEVICE_BLOCK_BYTES = 64 << 20
# Least features of an image in a block, if the image has as many. Products of fewer
# are slow.
MIN_FEATURES = 256


def forward(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """Return encodings (B, K, D) of x (B, D, N) or (B, D, H, W)."""
    return _forward(x.flatten(2), codewords, scale, None)


def forward_with_distances(x: Tensor, codewords: Tensor,
                           scale: Tensor) -> Tuple[Tensor, Tensor]:
    """Return encodings (B, K, D) and squared distances (B, K, N) of x."""
    columns = x.flatten(2)  # (B, D, N)
    distances = codewords.new_empty(
        columns.size(0), codewords.size(0), columns.size(2))
    return _forward(columns, codewords, scale, distances), distances


def _forward(x: Tensor, codewords: Tensor, scale: Tensor,
             distances: Optional[Tensor]) -> Tensor:
    """Encode x (B, D, N), and write the distances (B, K, N) unless they are None."""
    batch, (k, d) = x.size(0), codewords.shape
    mean = codewords.mean(0)  # (D, )
    centred = codewords - mean  # (K, D)
    x_sum = codewords.new_zeros(batch, d, k)  # sum_i A_ik x_i
    assignment_sum = codewords.new_zeros(batch, k, 1)  # sum_i A_ik
    for images, columns, block in blocks(x, mean, k):
        distance = distances_of(block, centred)  # (b, K, n)
        if distances is not None:
            distances[images, :, columns] = distance
        assignment = distance.mul_(scale.unsqueeze(1)).softmax(1)  # (b, K, n)
        x_sum[images].baddbmm_(block, assignment.transpose(1, 2))
        assignment_sum[images] += assignment.sum(2, keepdim=True)
    encodings = x_sum.transpose(1, 2).contiguous()  # (B, K, D)
    return encodings.sub_(assignment_sum * centred)


def backward(grad: Tensor, x: Tensor, codewords: Tensor, scale: Tensor,
             distances: Optional[Tensor] = None) -> Tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of x, codewords (K, D) and scale (K, ).

    With G = ``grad`` (B, K, D), per feature: dA_k = G_k (x - c_k),
    dl = A (dA - A dA), ds = sum dl d, dd = s dl,
    dx = A G - 2 dd C + 2 (sum_k dd_k) x, and dC = -a G - 2 (dd x - (sum dd) C).
    Distances (B, K, N) are computed again if they are None.
    """
    grad_x = torch.empty_like(x)
    grad_columns = grad_x.flatten(2)  # (B, D, N), a copy for some layouts
    grad_codewords, grad_scale = _backward(
        grad, x.flatten(2), codewords, scale, distances, grad_columns)
    if grad_columns.data_ptr() != grad_x.data_ptr():
        grad_x.copy_(grad_columns.view(x.shape))
    return grad_x, grad_codewords, grad_scale


def _backward(grad: Tensor, x: Tensor, codewords: Tensor, scale: Tensor,
              distances: Optional[Tensor], grad_x: Tensor) -> Tuple[Tensor, Tensor]:
    """Write grad_x (B, D, N); return the gradients of codewords and scale."""
    batch, (k, d) = x.size(0), codewords.shape
    mean = codewords.mean(0)  # (D, )
    centred = codewords - mean  # (K, D)
    scale_column = scale.unsqueeze(1)  # (K, 1)
    grad_dot_codeword = (grad * centred).sum(2, keepdim=True)  # (B, K, 1)
    left = torch.cat([grad, (-2 * centred).expand(batch, k, d)], 1)
    left = left.transpose(1, 2)  # (B, D, 2K)
    grad_scale = torch.zeros_like(scale)
    grad_distance_x_sum = codewords.new_zeros(batch, d, k)  # sum_i x_i dd_ik
    sums = codewords.new_zeros(batch, 2 * k, 1)  # sum_i A_ik, then sum_i dd_ik
    for images, columns, block in blocks(x, mean, k):
        distance = (distances_of(block, centred) if distances is None
                    else distances[images, :, columns])  # (b, K, n)
        assignment = (distance * scale_column).softmax(1)  # (b, K, n)
        grad_assignment = torch.baddbmm(
            grad_dot_codeword[images], grad[images], block, beta=-1)  # (b, K, n)
        grad_assignment -= (assignment * grad_assignment).sum(1, keepdim=True)
        grad_logits = grad_assignment.mul_(assignment)  # (b, K, n)
        grad_scale += (grad_logits * distance).sum((0, 2))
        grad_distance = grad_logits.mul_(scale_column)  # (b, K, n)
        grad_distance_x_sum[images].baddbmm_(block, grad_distance.transpose(1, 2))
        right = torch.cat([assignment, grad_distance], 1)  # (b, 2K, n)
        sums[images] += right.sum(2, keepdim=True)
        block.mul_(2 * grad_distance.sum(1, keepdim=True))
        # A G - 2 dd C is one product, left @ right.
        grad_x[images, :, columns] = block.baddbmm_(left[images], right)
    assignment_sum, grad_distance_sum = sums[:, :k], sums[:, k:]  # (B, K, 1)
    residual_sum = (grad_distance_x_sum.transpose(1, 2) -
                    grad_distance_sum * centred)  # (B, K, D)
    grad_codewords = -(assignment_sum * grad + 2 * residual_sum).sum(0)
    return grad_codewords, grad_scale


def distances_of(block: Tensor, centred: Tensor) -> Tensor:
    """Return |x - c|^2 (b, K, n) of features (b, D, n) and codewords (K, D)."""
    norms = centred.square().sum(1, keepdim=True)  # (K, 1)
    distance = block.square().sum(1, keepdim=True) + norms
    return distance.baddbmm_(
        centred.expand(block.size(0), *centred.shape), block, alpha=-2)


def blocks(x: Tensor, mean: Tensor,
           codes: int) -> Iterator[Tuple[slice, slice, Tensor]]:
    """Yield blocks of x (B, D, N).

    Yields:
        slice of B, slice of N, and the features in it less ``mean`` (D, ), in the
        type of ``mean``, (b, D, n). The next block overwrites their memory.
    """
    batch, _, count = x.shape
    images, length = block_size(x, codes, mean.element_size())
    buffer = torch.empty_like(x[:images, :, :length], dtype=mean.dtype)
    for first in range(0, batch, images):
        chosen = slice(first, min(first + images, batch))
        for start in range(0, count, length):
            columns = slice(start, min(start + length, count))
            part = x[chosen, :, columns]
            block = buffer[:part.size(0), :, :part.size(2)]
            yield chosen, columns, torch.sub(part, mean.unsqueeze(1), out=block)


def block_size(x: Tensor, codes: int, itemsize: int) -> Tuple[int, int]:
    """Return the number of images of a block, and of features of each.

    The budget limits the block, or its distances if K > D. A block has as many
    images as fit with ``MIN_FEATURES`` each, so that each thread computes one image.
    """
    batch, channels, count = x.shape
    budget = BLOCK_BYTES if x.device.type == 'cpu' else DEVICE_BLOCK_BYTES
    features = max(budget // (max(channels, codes) * itemsize), 1)
    images = max(min(features // max(min(count, MIN_FEATURES), 1), batch), 1)
    return images, max(features // images, MIN_FEATURES)
