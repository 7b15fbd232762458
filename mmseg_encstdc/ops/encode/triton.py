"""Encode by Triton kernels, forward and backward.

With residuals r_ik = x_i - c_k, distances d_ik = |r_ik|^2 and the assignment
A_i. = softmax_k(s_k d_ik), the encodings are E_k = sum_i A_ik r_ik. With the
gradient G of the encodings:

    grad_assignment_ik = G_k r_ik
    grad_logits_ik     = A_ik (grad_assignment_ik - sum_j A_ij grad_assignment_ij)
    grad_distance_ik   = s_k grad_logits_ik
    grad_x_i           = sum_k A_ik G_k + 2 sum_k grad_distance_ik r_ik
    grad_codewords_k   = -(sum_i A_ik) G_k - 2 sum_i grad_distance_ik r_ik
    grad_scale_k       = sum_i grad_logits_ik d_ik

assign_kernel computes maps (N, K): the assignment and, in the backward pass,
grad_distance. gather_kernel multiplies a map with the residuals and adds over the
features, which gives E and the second sum of grad_codewords. grad_features_kernel
computes grad_x.

- Images are processed in groups, so small that x stays in the GPU's second-level
  cache between the kernels. The workspace holds the maps of one group.
- No sum uses atomics. A program writes a partial sum, and partial sums are added in
  a fixed order, so that every run gives the same bits.
- float32 and float16 are multiplied as float32, in three tf32 products, after the
  mean codeword is subtracted from features and codewords. A common offset of
  features and codewords then causes no rounding error.
- bfloat16 is multiplied as bfloat16 with float32 sums. Codewords are two bfloat16
  terms; maps and G are rounded, and all sums but that of grad_scale use the rounded
  values. Rounding then changes an encoding in proportion to the residuals, not to the
  features.
"""
import math
from typing import Iterator, NamedTuple, Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ['backward', 'forward', 'why_not']

TYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_CODES = 256  # as in arguments.py
# Bytes of x in a group of images, in the type of the products, or of its map if K > D.
# The second-level cache of an A100 has 40 MB in two halves; data that both halves read
# is stored twice.
GROUP_BYTES = 16 << 20
MAX_IMAGES = 65535  # of a group; limit of the second and third axis of a grid
# gather_kernel divides the features of an image into splits until there are this many
# programs, near the number of multiprocessors of a large GPU. A split has at least
# MIN_SPLIT features, so that its partial sum is small compared with them.
PROGRAMS = 128
MIN_SPLIT = 256


# --- Kernels ------------------------------------------------------------------


@triton.jit
def load_features(x, mean, n, d, N, D, width, stride_channel, stride_row,
                  stride_column):
    """Load features n (BLOCK_N, ) at channels d (BLOCK_D, ): (BLOCK_N, BLOCK_D).

    bfloat16 features are returned unchanged, others as float32 less the mean codeword.
    """
    row = (n // width).to(tl.int64)
    column = (n % width).to(tl.int64)
    offset = row * stride_row + column * stride_column
    channel = d.to(tl.int64) * stride_channel
    features = tl.load(
        x + offset[:, None] + channel[None, :],
        mask=(n < N)[:, None] & (d < D)[None, :], other=0.0)
    if features.dtype != tl.bfloat16:
        features = features.to(tl.float32) - tl.load(
            mean + d, mask=d < D, other=0.0)[None, :]
    return features


@triton.jit
def load_rows(rows, k, d, K, D):
    """Load rows k (M, 1) or (1, M) of (K, D) at channels d of the other form."""
    return tl.load(rows + k * D + d, mask=(k < K) & (d < D), other=0.0)


@triton.jit
def add_product(total, left, right, TERMS: tl.constexpr, PRECISION: tl.constexpr):
    """Return total + left @ right.

    Where ``left`` is bfloat16, ``right`` becomes one or two bfloat16 terms.
    """
    if left.dtype == tl.bfloat16:
        high = right.to(tl.bfloat16)
        if TERMS == 2:
            rest = right - high.to(tl.float32)
            total = tl.dot(left, rest.to(tl.bfloat16), total)
        total = tl.dot(left, high, total)
    else:
        total = tl.dot(left, right, total, input_precision=PRECISION)
    return total


@triton.jit
def load_of_codewords(values, k, K):
    """Load a value of each codeword k (BLOCK_K, ): (1, BLOCK_K)."""
    return tl.load(values + k, mask=k < K, other=0.0)[None, :]


@triton.jit
def assignment_of(distance, scale, k, K):
    """Return the softmax over codewords of scale (1, BLOCK_K) * distance
    (BLOCK_N, BLOCK_K)."""
    logits = tl.where((k < K)[None, :], scale * distance, -float('inf'))
    exponentials = tl.exp(logits - tl.max(logits, 1)[:, None])
    return exponentials / tl.sum(exponentials, 1)[:, None]


@triton.jit
def assign_kernel(
        assignment,  # (images, N, K), written; bfloat16 or float32
        grad_distance,  # (images, N, K), written, of the same type
        tile_sums,  # (images, 2, tiles, K), written: the sums over the features of
                    # a tile of the assignment, and of grad_logits * distance
        x,  # (images, D, N) with the strides below
        mean,  # (D, ), of the codewords
        centred,  # (K, D), codewords less the mean
        codeword_sq,  # (K, ), squared norms of the rows of centred
        scale,  # (K, )
        grad,  # (images, K, D), of the encodings
        grad_dot_codeword,  # (images, K), products of the rows of grad and of centred
        N, K, D, width, stride_image, stride_channel, stride_row, stride_column,
        BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
        PRECISION: tl.constexpr, BACKWARD: tl.constexpr):
    """Compute the assignment of BLOCK_N features of an image.

    In the backward pass also compute grad_distance and tile_sums. The forward pass
    does not access grad_distance, tile_sums, grad and grad_dot_codeword.
    """
    tile, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    x += image * stride_image
    products = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)  # of features, codewords
    grad_assignment = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    squares = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for first in range(0, D, BLOCK_D):
        d = first + tl.arange(0, BLOCK_D)
        features = load_features(x, mean, n, d, N, D, width, stride_channel,
                                 stride_row, stride_column)
        squares += features.to(tl.float32) * features.to(tl.float32)
        codewords = load_rows(centred, k[None, :], d[:, None], K, D)
        products = add_product(products, features, codewords, 2, PRECISION)
        if BACKWARD:
            rows = load_rows(grad + image * K * D, k[None, :], d[:, None], K, D)
            grad_assignment = add_product(
                grad_assignment, features, rows, 1, PRECISION)
    distance = (tl.sum(squares, 1)[:, None] - 2 * products +
                load_of_codewords(codeword_sq, k, K))
    factor = load_of_codewords(scale, k, K)
    values = assignment_of(distance, factor, k, K)
    rounded = values.to(assignment.dtype.element_ty)
    offset = (image * N + n)[:, None] * K + k[None, :]
    inside = (n < N)[:, None] & (k < K)[None, :]
    tl.store(assignment + offset, rounded, mask=inside)
    if BACKWARD:
        values = tl.where(inside, values, 0.0)
        grad_assignment -= load_of_codewords(grad_dot_codeword + image * K, k, K)
        grad_logits = values * (
            grad_assignment - tl.sum(values * grad_assignment, 1)[:, None])
        tl.store(grad_distance + offset,
                 (factor * grad_logits).to(assignment.dtype.element_ty), mask=inside)
        rounded = tl.where(inside, rounded.to(tl.float32), 0.0)
        tiles = tl.num_programs(0)
        tile_sums += (2 * image * tiles + tile) * K + k
        tl.store(tile_sums, tl.sum(rounded, 0), mask=k < K)
        tl.store(tile_sums + tiles * K, tl.sum(grad_logits * distance, 0), mask=k < K)


@triton.jit
def grad_features_kernel(
        grad_x,  # (images, D, N) with the last strides below, written
        assignment,  # (images, N, K)
        grad_distance,  # (images, N, K)
        x,  # (images, D, N) with the first strides below
        mean,  # (D, ), of the codewords
        centred,  # (K, D), codewords less the mean
        grad,  # (images, K, D), of the encodings
        N, K, D, width, stride_image, stride_channel, stride_row, stride_column,
        grad_width, grad_stride_image, grad_stride_channel, grad_stride_row,
        grad_stride_column,
        BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
        PRECISION: tl.constexpr):
    """Compute grad_x of BLOCK_N features of an image at BLOCK_D channels."""
    blocks = tl.cdiv(D, BLOCK_D)
    image = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    n = tl.program_id(0) // blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    grad_distance_sums = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        offset = (image * N + n)[:, None] * K + k[None, :]
        inside = (n < N)[:, None] & (k < K)[None, :]
        values = tl.load(assignment + offset, mask=inside, other=0.0)
        rows = load_rows(grad + image * K * D, k[:, None], d[None, :], K, D)
        total = add_product(total, values, rows, 1, PRECISION)
        grad_distances = tl.load(grad_distance + offset, mask=inside, other=0.0)
        grad_distance_sums += grad_distances.to(tl.float32)
        minus_two_codewords = -2 * load_rows(
            centred, k[:, None], d[None, :], K, D)
        total = add_product(total, grad_distances, minus_two_codewords, 2, PRECISION)
    features = load_features(x + image * stride_image, mean, n, d, N, D, width,
                             stride_channel, stride_row, stride_column)
    total += 2 * tl.sum(grad_distance_sums, 1)[:, None] * features.to(tl.float32)
    offset = ((n // grad_width).to(tl.int64) * grad_stride_row +
             (n % grad_width).to(tl.int64) * grad_stride_column)
    channel = d.to(tl.int64) * grad_stride_channel
    tl.store(grad_x + image * grad_stride_image + offset[:, None] + channel[None, :],
             total.to(grad_x.dtype.element_ty),
             mask=(n < N)[:, None] & (d < D)[None, :])


@triton.jit
def gather_kernel(
        partial_sums,  # (images, splits, K, D), written
        weights,  # (images, N, K), assignment or grad_distance
        x,  # (images, D, N) with the strides below
        mean,  # (D, ), of the codewords
        centred,  # (K, D), codewords less the mean
        N, K, D, width, stride_image, stride_channel, stride_row, stride_column,
        length,  # features of a split
        BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
        PRECISION: tl.constexpr):
    """Compute sum_i weights_ik r_ik over the features i of a split."""
    blocks = tl.cdiv(D, BLOCK_D)
    split, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    d = tl.program_id(0) % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    k = tl.program_id(0) // blocks * BLOCK_K + tl.arange(0, BLOCK_K)
    end = tl.minimum(split * length + length, N)
    x += image * stride_image
    weights += image * N * K
    total = tl.zeros((BLOCK_D, BLOCK_K), tl.float32)
    weight_sums = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    for first in range(split * length, end, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        features = load_features(x, mean, n, d, end, D, width, stride_channel,
                                 stride_row, stride_column)
        weight = tl.load(
            weights + n.to(tl.int64)[:, None] * K + k[None, :],
            mask=(n < end)[:, None] & (k < K)[None, :], other=0.0)
        weight_sums += weight.to(tl.float32)
        total = add_product(total, tl.trans(features), weight, 1, PRECISION)
    codewords = load_rows(centred, k[None, :], d[:, None], K, D)
    total -= tl.sum(weight_sums, 0)[None, :] * codewords
    offset = (image * tl.num_programs(1) + split) * K
    tl.store(partial_sums + (offset + k)[None, :] * D + d[:, None], total,
             mask=(k < K)[None, :] & (d < D)[:, None])


# --- Plan ---------------------------------------------------------------------


class Strides(NamedTuple):
    """Describe x as a map of rows of ``width`` features, by strides in elements.

    Evenly spaced features are N rows of one feature. Triton compiles integers equal
    to 1 as constants, so that a width of 1 adds no instructions.
    """
    width: int
    image: int
    channel: int
    row: int
    column: int


def strides_of(x: Tensor) -> Strides:
    """Describe x (B, D, N) or (B, D, H, W)."""
    if x.dim() == 3:
        return Strides(1, *x.stride(), 0)
    _, _, rows, columns = x.shape
    image, channel, row, column = x.stride()
    if columns == 1:
        return Strides(1, image, channel, row, 0)
    if rows == 1 or row == columns * column:
        return Strides(1, image, channel, column, 0)
    return Strides(columns, image, channel, row, column)


class Plan(NamedTuple):
    """Describe how a call is divided, which depends on shapes and types only."""
    images: int  # of a group
    tiles: int  # programs of assign_kernel for an image
    blocks: int  # programs of gather_kernel for a split
    splits: int  # of the features of an image, in gather_kernel
    length: int  # features of a split
    grad_blocks: int  # programs of grad_features_kernel for an image
    assign: dict  # block sizes and warps of each kernel
    gather: dict
    grad_features: dict


def plan_of(x: Tensor, codewords: Tensor) -> Plan:
    """Return the plan for x (B, D, N) or (B, D, H, W) and codewords (K, D)."""
    (k, d), n = codewords.shape, x[0, 0].numel()
    assign, gather, grad_features = options_of(k, x.dtype)
    images = GROUP_BYTES // (max(k, d) * n * operand_type(x).itemsize)
    groups = triton.cdiv(x.size(0), max(1, min(images, MAX_IMAGES)))
    images = triton.cdiv(x.size(0), groups)
    blocks = blocks_of(gather, K=k, D=d)
    splits = min(triton.cdiv(PROGRAMS, blocks * images), n // MIN_SPLIT)
    length = triton.cdiv(n, max(splits, 1))
    length = blocks_of(gather, N=length) * gather['BLOCK_N']
    return Plan(images, blocks_of(assign, N=n), blocks, triton.cdiv(n, length), length,
                blocks_of(grad_features, N=n, D=d), assign, gather, grad_features)


def blocks_of(options: dict, **sizes: int) -> int:
    """Return the number of blocks of the given axes, multiplied."""
    return math.prod(triton.cdiv(size, options[f'BLOCK_{axis}'])
                     for axis, size in sizes.items())


def options_of(codewords: int, dtype: torch.dtype) -> Tuple[dict, dict, dict]:
    """Return block sizes, warps and stages of each kernel for K codewords.

    No kernel spills registers with them. BLOCK_N = 64 with 8 warps crashes Triton 3.0
    and 3.1 when they compile for Hopper.
    """
    # AMD GPUs multiply float32 without tf32, and have less shared memory.
    hip = bool(torch.version.hip)
    common = dict(PRECISION='ieee' if hip else 'tf32x3', num_stages=2 if hip else 3)
    padded = max(16, triton.next_power_of_2(codewords))
    assign = dict(common, BLOCK_N=64, BLOCK_K=padded, BLOCK_D=32, num_warps=4)
    if padded > 32:
        assign.update(BLOCK_N=32, BLOCK_D=16, num_warps=4 if padded == 64 else 8)
    gather = dict(common, BLOCK_N=64 if dtype == torch.bfloat16 else 32,
                  BLOCK_K=min(padded, 32), BLOCK_D=64, num_warps=4)
    if not hip:
        gather.update(num_stages=4)
    return assign, gather, dict(common, BLOCK_N=gather['BLOCK_N'], BLOCK_K=16,
                                BLOCK_D=64, num_warps=4)


def workspace(x: Tensor, codewords: Tensor, plan: Plan,
              maps: int) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the tensors that the kernels of a group write besides grad_x.

    Returns:
        maps (maps, images, N, K), partial sums (images, splits, K, D) and sums of
        tiles (images, 2, tiles, K).
    """
    k = codewords.size(0)
    return (torch.empty(maps, plan.images, x[0, 0].numel(), k,
                        dtype=operand_type(x), device=x.device),
            codewords.new_empty(plan.images, plan.splits, *codewords.shape),
            codewords.new_empty(plan.images, 2, plan.tiles, k))


def operand_type(x: Tensor) -> torch.dtype:
    """Return the type in which maps are stored and multiplied."""
    return torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32


def centre(x: Tensor, codewords: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the mean (D, ), codewords less the mean (K, D) and their squared
    norms (K, ).

    For bfloat16 features the mean is 0, because it is not subtracted from them, and
    the codewords are rounded to two bfloat16 terms.
    """
    if x.dtype == torch.bfloat16:
        mean = torch.zeros_like(codewords[0])
        high = codewords.bfloat16().float()
        centred = (high + (codewords - high).bfloat16()).contiguous()
    else:
        mean = codewords.mean(0)
        centred = (codewords - mean).contiguous()
    return mean, centred, centred.square().sum(1)


# --- The operator ---------------------------------------------------------------


def why_not(x: Tensor, codewords: Tensor) -> Optional[str]:
    """Return why the kernels do not accept x and codewords, or None."""
    if x.dtype not in TYPES:
        return f'x is {x.dtype}'.replace('torch.', '')
    if codewords.dtype != torch.float32:
        return f'codewords are {codewords.dtype}'.replace('torch.', '')
    if not 1 <= codewords.size(0) <= MAX_CODES:
        return f'there are {codewords.size(0)} codewords, not 1 to {MAX_CODES}'
    if x[0, 0].numel() >= 2**30:
        return f'an image of x has {x[0, 0].numel()} features, 2^30 or more'
    if codewords.numel() >= 2**31:
        return f'codewords have {codewords.numel()} numbers, 2^31 or more'
    if x.is_cuda and not torch.version.hip:
        major, minor = torch.cuda.get_device_capability(x.device)
        if major < 8:
            return f'the GPU has compute capability {major}.{minor}, below 8.0'
    return None


def groups_of(batch: int, plan: Plan) -> Iterator[slice]:
    """Yield the images of each group."""
    for first in range(0, batch, plan.images):
        yield slice(first, min(first + plan.images, batch))


def gather(partial_sums: Tensor, weights: Tensor, x: Tensor, mean: Tensor,
           centred: Tensor, plan: Plan) -> Tensor:
    """Return sum_i weights_ik r_ik of each split of a group: (b, splits, K, D).

    Args:
        partial_sums: (images, splits, K, D), of which the first b are written.
        weights: (images, N, K).
        x: features, (b, D, N) or (b, D, H, W).
        mean: (D, ), of the codewords.
        centred: (K, D).
        plan: of the call.
    """
    gather_kernel[(plan.blocks, plan.splits, x.size(0))](
        partial_sums, weights, x, mean, centred, weights.size(1), *centred.shape,
        *strides_of(x), plan.length, **plan.gather)
    return partial_sums[:x.size(0)]


def forward(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """Return encodings (B, K, D) in the type of the codewords.

    Args:
        x: features, (B, D, N) or (B, D, H, W), of any strides.
        codewords: (K, D).
        scale: (K, ).
    """
    with torch.cuda.device_of(x):
        plan, scale = plan_of(x, codewords), scale.contiguous()
        mean, centred, codeword_sq = centre(x, codewords)
        encodings = codewords.new_empty(x.size(0), *codewords.shape)
        (assignment, ), partial_sums, tile_sums = workspace(x, codewords, plan, 1)
        for group in groups_of(x.size(0), plan):
            part = x[group]
            assign_kernel[(plan.tiles, part.size(0))](
                assignment, assignment, tile_sums, part, mean, centred, codeword_sq,
                scale, centred, codeword_sq, assignment.size(1), *codewords.shape,
                *strides_of(part), **plan.assign, BACKWARD=False)
            torch.sum(gather(partial_sums, assignment, part, mean, centred, plan), 1,
                      out=encodings[group])
        return encodings


def backward(grad: Tensor, x: Tensor, codewords: Tensor,
             scale: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, codewords (K, D) and scale (K, ).

    Args:
        grad: gradient of the encodings, (B, K, D).
        x, codewords, scale: as in :func:`forward`.
    """
    with torch.cuda.device_of(x):
        plan, scale = plan_of(x, codewords), scale.contiguous()
        mean, centred, codeword_sq = centre(x, codewords)
        grad = grad.contiguous()
        grad_dot_codeword = (grad.to(operand_type(x)) * centred).sum(2)  # (B, K)
        sums = codewords.new_empty(x.size(0), 2, codewords.size(0))
        grad_x, grad_codewords = torch.empty_like(x), torch.zeros_like(centred)
        maps, partial_sums, tile_sums = workspace(x, codewords, plan, 2)
        for group in groups_of(x.size(0), plan):
            part, sizes = x[group], (maps.size(2), *codewords.shape)
            assign_kernel[(plan.tiles, part.size(0))](
                *maps, tile_sums, part, mean, centred, codeword_sq, scale, grad[group],
                grad_dot_codeword[group], *sizes, *strides_of(part), **plan.assign,
                BACKWARD=True)
            torch.sum(tile_sums[:part.size(0)], 2, out=sums[group])
            residual_sums = gather(partial_sums, maps[1], part, mean, centred, plan)
            grad_codewords.sub_(residual_sums.sum((0, 1)), alpha=2)
            grad_features_kernel[(plan.grad_blocks, part.size(0))](
                grad_x[group], *maps, part, mean, centred, grad[group], *sizes,
                *strides_of(part), *strides_of(grad_x), **plan.grad_features)
        del maps, partial_sums, residual_sums  # the product below is (B, K, D)
        assignment_sum, grad_scale = sums.unbind(1)  # (B, K) each
        grad_codewords -= (assignment_sum.unsqueeze(2) * grad).sum(0)
        return grad_x, grad_codewords, grad_scale.sum(0)
