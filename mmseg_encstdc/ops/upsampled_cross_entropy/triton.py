"""Compute the cross entropy of upsampled logits in Triton, forward and backward.

Scores are the logits at the size of the labels. They are never in memory: a program
interpolates them in registers, forward and again backward. A cell is the area between
two neighbouring rows and two neighbouring columns of the logits. Its scores are
interpolated from its four logits. Label pixels before the first logit belong to the
first cell, those after the last logit to the last cell.

The backward pass sums the gradients in each cell for each of its four logits. These
partial sums are four times as large as the logits. Then each logit adds the partial
sums of the four cells around it. No sum uses atomics, so every run gives the same
bits.

The kernels multiply logits by log2(e), because a GPU computes powers of two.
"""
from functools import lru_cache
from math import prod
from typing import NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

__all__ = ['backward', 'forward', 'why_not']

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
MAX_ELEMENTS = 2**30  # between the first and last of an image; offsets are int32
MAX_IMAGES = 65535  # limit of the second axis of a CUDA grid

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
# A weight of 0 times infinity is NaN, so the logits of masked classes stay finite.
LARGEST = tl.constexpr(torch.finfo(torch.float32).max / 4)

BLOCK_C = 8  # classes at a time, all in one thread
FORWARD_X = 128  # label columns of a program, one for each thread
FORWARD_Y = 8  # maximum of label rows at a time
BACKWARD_X = 4  # maximum of label columns of a cell at a time
BACKWARD_THREADS = 64
SUM_BLOCK = 512


def why_not(logits: Tensor, labels: Tensor) -> Optional[str]:
    """Return why the kernels do not accept these arguments, or None.

    Args:
        logits: (B, C, h, w).
        labels: (B, H, W).
    """
    if logits.dtype not in FLOATS:
        return f'the logits are {str(logits.dtype).replace("torch.", "")}'
    if logits.size(0) > MAX_IMAGES:
        return f'there are more than {MAX_IMAGES} images'
    if max(_span(logits), _span(labels), prod(labels.shape[1:])) > MAX_ELEMENTS:
        return f'an image spans more than {MAX_ELEMENTS} elements'
    return None


def forward(logits: Tensor, labels: Tensor, align_corners: bool,
            ignore_index: int) -> Tuple[Tensor, Tensor, Tensor]:
    """Compute losses, hits and logsumexp, (B, H, W) each: float32, bool, float32.

    A hit is a pixel whose label has the largest logit. An ignored pixel has loss 0
    and is no hit; one whose label is no class has loss NaN and is no hit.

    Args:
        logits: (B, C, h, w), float32, float16 or bfloat16, any strides.
        labels: (B, H, W), any integer type, any strides.
        align_corners: of the interpolation.
        ignore_index: label of the ignored pixels.
    """
    batch, classes, height, width = logits.shape
    losses = logits.new_empty(labels.shape, dtype=torch.float32)
    hits = torch.empty_like(losses, dtype=torch.bool)
    logsumexp = torch.empty_like(losses)
    rows, columns = _axes(logits, labels, align_corners)
    grid = triton.cdiv(labels.size(2), FORWARD_X) * height, batch
    with torch.cuda.device_of(logits):
        upsampled_cross_entropy_forward[grid](
            logits, labels, losses, hits, logsumexp,
            rows.first, rows.weight, columns.before, columns.weight,
            *logits.stride(), *labels.stride(),
            classes, height, width, *labels.shape[1:], ignore_index,
            BLOCK_C=BLOCK_C, BLOCK_Y=min(rows.cell_size, FORWARD_Y), BLOCK_X=FORWARD_X,
            num_warps=_warps(FORWARD_X))
    return losses, hits, logsumexp


def backward(grad: Tensor, logits: Tensor, labels: Tensor, logsumexp: Tensor,
             align_corners: bool, ignore_index: int) -> Tensor:
    """Compute the gradient of the logits, (B, C, h, w), contiguous, in their type.

    A pixel gives grad * (softmax - [class is the label]); an ignored one gives 0,
    one whose label is no class gives NaN.

    Args:
        grad: gradient of the losses, (B, H, W), any strides.
        logits: (B, C, h, w), as in ``forward``.
        labels: (B, H, W), as in ``forward``.
        logsumexp: (B, H, W), contiguous, from ``forward``.
        align_corners: of the interpolation.
        ignore_index: label of the ignored pixels.
    """
    batch, classes, height, width = logits.shape
    if _span(grad) > MAX_ELEMENTS:
        grad = grad.contiguous()
    grad_logits = logits.new_empty(logits.shape)
    partial_sum = logits.new_empty((4, *logits.shape), dtype=torch.float32)
    rows, columns = _axes(logits, labels, align_corners)
    block_x = min(columns.cell_size, BACKWARD_X)
    cells = BACKWARD_THREADS // block_x
    blocks = triton.cdiv(classes, BLOCK_C)
    with torch.cuda.device_of(logits):
        upsampled_cross_entropy_backward[
            (blocks * triton.cdiv(width, cells) * height, batch)](
                grad, logits, labels, logsumexp, partial_sum,
                rows.first, rows.weight, columns.first, columns.weight,
                *grad.stride(), *logits.stride(), *labels.stride(),
                batch, classes, height, width, *labels.shape[1:], ignore_index,
                BLOCK_C=BLOCK_C, BLOCK_CELLS=cells, BLOCK_X=block_x,
                num_warps=_warps(BACKWARD_THREADS))
        add_partial_sums[
            (triton.cdiv(height * width, SUM_BLOCK) * classes * batch, )](
                partial_sum, grad_logits, batch, classes, height, width,
                BLOCK=SUM_BLOCK, num_warps=4)
    return grad_logits


def _warps(threads: int) -> int:
    """Return how many warps (wavefronts on an AMD GPU) have that many threads."""
    return threads // (64 if torch.version.hip else 32)


def _span(images: Tensor) -> int:
    """Count the elements from the first to the last of an image in memory."""
    return 1 + sum((size - 1) * stride for size, stride in
                   zip(images.shape[1:], images.stride()[1:]))


# --- Interpolation weights ------------------------------------------------------


class Axis(NamedTuple):
    """Describe the linear interpolation of an axis from inputs to outputs."""
    before: Tensor  # (outputs, ), int32: index of the input before each output
    weight: Tensor  # (outputs, ), float32: of the input after it; before has 1 - weight
    first: Tensor  # (inputs + 1, ), int32: first output of each cell, then their number
    cell_size: int  # outputs / inputs, rounded up to a power of two


def _axes(logits: Tensor, labels: Tensor, align_corners: bool) -> Tuple[Axis, Axis]:
    """Return the axis of the rows and that of the columns."""
    return tuple(_axis(logits.size(dim), labels.size(dim - 1), bool(align_corners),
                       logits.device) for dim in (2, 3))


@lru_cache(maxsize=128)
def _axis(inputs: int, outputs: int, align_corners: bool,
          device: torch.device) -> Axis:
    """Make the tensors of an axis once, because copying to a GPU makes the host wait.

    The weights are PyTorch's interpolation of an identity matrix.
    """
    identity = torch.eye(inputs, dtype=torch.float32, device='cpu')
    weights = F.interpolate(  # (inputs, outputs)
        identity[None], outputs, mode='linear', align_corners=align_corners)[0]
    before = weights.ne(0).int().argmax(0)
    weight = F.pad(weights, (0, 0, 0, 1)).gather(0, before[None] + 1)[0]
    first = torch.searchsorted(before, torch.arange(inputs + 1, device='cpu'))
    return Axis(before.int().to(device), weight.to(device), first.int().to(device),
                triton.next_power_of_2(triton.cdiv(outputs, inputs)))


# --- Kernels -------------------------------------------------------------------


@triton.jit
def load_logits(pointers):
    """Load logits times log2(e), within +-LARGEST; plus infinity becomes NaN."""
    values = tl.load(pointers).to(tl.float32)
    values = tl.where(values == float('inf'), float('nan'), values) * LOG2_E
    values = tl.minimum(values, LARGEST, propagate_nan=tl.PropagateNan.ALL)
    return tl.maximum(values, -LARGEST, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def interpolate(before, after, weight):
    """Interpolate two values in fused operations, which always round alike."""
    return tl.fma(weight, after - before, before)


@triton.jit
def load_between(row, left, right, weight):
    """Load a row's logits at column offsets ``left`` and ``right`` and interpolate."""
    return interpolate(load_logits(row + left), load_logits(row + right), weight)


@triton.jit
def upsampled_cross_entropy_forward(
        logits,  # (B, C, h, w), float32, float16 or bfloat16
        labels,  # (B, H, W), an integer type
        losses,  # (B, H, W), float32, contiguous
        hits,  # (B, H, W), bool, contiguous
        logsumexp,  # (B, H, W), float32, contiguous
        row_first,  # (h + 1, ), int32, of Axis
        row_weight,  # (H, ), float32
        column_before,  # (W, ), int32
        column_weight,  # (W, ), float32
        logits_stride_b, logits_stride_c, logits_stride_h, logits_stride_w,
        labels_stride_b, labels_stride_h, labels_stride_w,
        C, h, w, H, W, ignore_index,
        BLOCK_C: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """Compute a tile of label columns x of one row of cells of one image.

    BLOCK_Y label rows y at a time use the same interpolation between columns.
    """
    tiles = tl.cdiv(W, BLOCK_X)
    cell = tl.program_id(0) // tiles
    image = tl.program_id(1).to(tl.int64)
    tile_x = tl.program_id(0) % tiles * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
    x = tl.minimum(tile_x, W - 1)  # (1, X), with X for BLOCK_X
    weight_x = tl.load(column_weight + x)
    left = tl.load(column_before + x)
    right = tl.minimum(left + 1, w - 1) * logits_stride_w
    left = left * logits_stride_w
    upper = logits + image * logits_stride_b + cell * logits_stride_h
    lower = upper + (tl.minimum(cell + 1, h - 1) - cell) * logits_stride_h
    labels += image * labels_stride_b
    losses += image * H * W
    hits += image * H * W
    logsumexp += image * H * W
    first_y = tl.load(row_first + cell)
    last_y = tl.load(row_first + cell + 1)
    for start_y in range(first_y, last_y, BLOCK_Y):
        tile_y = start_y + tl.arange(0, BLOCK_Y)[:, None]
        y = tl.minimum(tile_y, last_y - 1)  # (Y, 1)
        weight_y = tl.load(row_weight + y)

        largest = tl.full((BLOCK_Y, BLOCK_X), float('-inf'), tl.float32)
        total = tl.zeros((BLOCK_Y, BLOCK_X), tl.float32)
        for start_c in range(0, C, BLOCK_C):
            c = start_c + tl.arange(0, BLOCK_C)[:, None]  # (C, 1)
            channel = tl.minimum(c, C - 1) * logits_stride_c
            above = load_between(upper, channel + left, channel + right, weight_x)
            below = load_between(lower, channel + left, channel + right, weight_x)
            change = tl.where(c < C, below - above, 0.0)  # (C, X)
            above = tl.where(c < C, above, float('-inf'))
            scores = tl.fma(weight_y[:, None, :], change[None, :, :],
                            above[None, :, :])  # (Y, C, X)
            previous = largest
            largest = tl.maximum(previous, tl.max(scores, axis=1))
            powers = tl.exp2(scores - largest[:, None, :])
            total = total * tl.exp2(previous - largest) + tl.sum(powers, axis=1)

        label = tl.load(
            labels + y * labels_stride_h + x * labels_stride_w).to(tl.int64)
        valid = (label >= 0) & (label < C)  # (Y, X)
        ignored = label == ignore_index
        channel = tl.where(valid, label, 0).to(tl.int32) * logits_stride_c
        above = load_between(upper, channel + left, channel + right, weight_x)
        below = load_between(lower, channel + left, channel + right, weight_x)
        score = interpolate(above, below, weight_y)
        log2_total = tl.log2(total)
        loss = tl.where(valid, (largest - score + log2_total) * LN_2, float('nan'))
        # largest ignores a NaN score, and total becomes NaN.
        hit = (score >= largest) & (total == total) & valid & (label != ignore_index)
        inside = (tile_y < last_y) & (tile_x < W)
        tl.store(losses + y * W + x, tl.where(ignored, 0.0, loss), mask=inside)
        tl.store(hits + y * W + x, hit, mask=inside)
        tl.store(logsumexp + y * W + x, (largest + log2_total) * LN_2, mask=inside)


@triton.jit
def upsampled_cross_entropy_backward(
        grad,  # (B, H, W), of the losses
        logits,  # (B, C, h, w), float32, float16 or bfloat16
        labels,  # (B, H, W), an integer type
        logsumexp,  # (B, H, W), float32, contiguous
        partial_sum,  # (4, B, C, h, w), float32, contiguous
        row_first,  # (h + 1, ), int32, of Axis
        row_weight,  # (H, ), float32
        column_first,  # (w + 1, ), int32
        column_weight,  # (W, ), float32
        grad_stride_b, grad_stride_h, grad_stride_w,
        logits_stride_b, logits_stride_c, logits_stride_h, logits_stride_w,
        labels_stride_b, labels_stride_h, labels_stride_w,
        B, C, h, w, H, W, ignore_index,
        BLOCK_C: tl.constexpr, BLOCK_CELLS: tl.constexpr, BLOCK_X: tl.constexpr):
    """Sum the gradients in a tile of a row of cells, for the four logits of each.

    The four partial sums are those of the upper left, upper right, lower left and
    lower right logit. BLOCK_X label columns x of every cell are computed at once.
    Tensors are (BLOCK_C, BLOCK_CELLS, BLOCK_X), or 1 where nothing varies.
    """
    # Programs of the same pixels follow each other, so that these stay in a cache.
    blocks = tl.cdiv(C, BLOCK_C)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)[:, None, None]
    tiles = tl.cdiv(w, BLOCK_CELLS)
    tile = tl.program_id(0) // blocks % tiles
    cell = tl.program_id(0) // blocks // tiles
    image = tl.program_id(1).to(tl.int64)
    left = tile * BLOCK_CELLS + tl.arange(0, BLOCK_CELLS)[None, :, None]
    exists = (c < C) & (left < w)
    upper = logits + image * logits_stride_b + cell * logits_stride_h
    lower = upper + (tl.minimum(cell + 1, h - 1) - cell) * logits_stride_h
    channel = tl.minimum(c, C - 1) * logits_stride_c
    to_left = channel + tl.minimum(left, w - 1) * logits_stride_w
    to_right = channel + tl.minimum(left + 1, w - 1) * logits_stride_w
    upper_left = load_logits(upper + to_left)
    upper_right = load_logits(upper + to_right)
    lower_left = load_logits(lower + to_left)
    lower_right = load_logits(lower + to_right)

    zeros = tl.zeros((BLOCK_C, BLOCK_CELLS, BLOCK_X), tl.float32)
    sum_upper_left, sum_upper_right = zeros, zeros
    sum_lower_left, sum_lower_right = zeros, zeros
    grad += image * grad_stride_b
    labels += image * labels_stride_b
    logsumexp += image * H * W
    first_x = tl.load(column_first + left, mask=left < w, other=0)
    last_x = tl.load(column_first + left + 1, mask=left < w, other=0)
    first_y = tl.load(row_first + cell)
    last_y = tl.load(row_first + cell + 1)
    for step in range(0, tl.max(tl.ravel(last_x - first_x), axis=0), BLOCK_X):
        x = first_x + step + tl.arange(0, BLOCK_X)[None, None, :]
        in_cell = x < last_x
        x = tl.maximum(tl.minimum(x, last_x - 1), 0)
        weight_x = tl.load(column_weight + x)
        # A column outside the cell must not spread a NaN logit.
        above = tl.where(in_cell, interpolate(upper_left, upper_right, weight_x), 0.0)
        below = tl.where(in_cell, interpolate(lower_left, lower_right, weight_x), 0.0)
        change = below - above
        sum_upper, sum_lower = zeros, zeros
        for y in range(first_y, last_y):
            weight_y = tl.load(row_weight + y)
            label = tl.load(
                labels + y * labels_stride_h + x * labels_stride_w).to(tl.int64)
            grad_loss = tl.load(
                grad + y * grad_stride_h + x * grad_stride_w).to(tl.float32)
            log2_sum = tl.load(logsumexp + y * W + x) * LOG2_E
            valid = (label >= 0) & (label < C)
            grad_loss = tl.where(valid, grad_loss, float('nan'))
            grad_loss = tl.where(in_cell & (label != ignore_index), grad_loss, 0.0)
            label = tl.where(valid, label, -1).to(tl.int32)
            probability = tl.exp2(tl.fma(weight_y, change, above) - log2_sum)
            difference = tl.where(label == c, probability - 1.0, probability)
            grad_lower = grad_loss * weight_y
            sum_upper = tl.fma(difference, grad_loss - grad_lower, sum_upper)
            sum_lower = tl.fma(difference, grad_lower, sum_lower)
        sum_upper_left += sum_upper * (1.0 - weight_x)
        sum_upper_right += sum_upper * weight_x
        sum_lower_left += sum_lower * (1.0 - weight_x)
        sum_lower_right += sum_lower * weight_x

    size = tl.cast(B, tl.int64) * C * h * w
    out = partial_sum + ((image * C + c) * h + cell) * w + left
    store_sum(out, sum_upper_left, exists)
    store_sum(out + size, sum_upper_right, exists)
    store_sum(out + 2 * size, sum_lower_left, exists)
    store_sum(out + 3 * size, sum_lower_right, exists)


@triton.jit
def store_sum(pointers, values, mask):
    """Store the sum over the label columns of a cell."""
    tl.store(pointers, tl.sum(values, axis=2, keep_dims=True), mask=mask)


@triton.jit
def add_partial_sums(
        partial_sum,  # (4, B, C, h, w), float32, contiguous
        grad_logits,  # (B, C, h, w), contiguous
        B, C, h, w, BLOCK: tl.constexpr):
    """Add for each logit of a map (h, w) the partial sums of its four cells."""
    blocks = tl.cdiv(h * w, BLOCK)
    first = (tl.program_id(0) // blocks).to(tl.int64) * h * w  # of the map
    index = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = index < h * w
    has_left = inside & (index % w > 0)
    has_upper = inside & (index >= w)
    size = tl.cast(B, tl.int64) * C * h * w
    here = partial_sum + first + index  # the cell that begins with the logit
    total = tl.load(here, mask=inside, other=0.0)
    total += tl.load(here + size - 1, mask=has_left, other=0.0)
    total += tl.load(here + 2 * size - w, mask=has_upper, other=0.0)
    total += tl.load(here + 3 * size - w - 1, mask=has_left & has_upper, other=0.0)
    tl.store(grad_logits + first + index, total, mask=inside)
