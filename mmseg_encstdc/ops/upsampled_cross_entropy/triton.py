"""Cross entropy of bilinearly upsampled logits in Triton, forward and backward.

The logits at the size of the labels never reach memory: a program interpolates them
in registers, forward and again backward. A cell is what lies between one logit and
the next along an axis; its label rows (or columns) are interpolated from these two.
Cell 0 also holds the outputs before the first logit, and the last cell those after
the last logit.

Logits count in log2 units inside the kernels, because a GPU computes powers of two.
Both passes add in a fixed order, without atomic operations.
"""
from functools import lru_cache
from typing import NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

__all__ = ['backward', 'forward', 'why_not']

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
MOST_IMAGES = 65535  # of a CUDA grid's second and third axis

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
# A weight of 0 times infinity is NaN, so the logits of masked classes stay finite.
LARGEST = tl.constexpr(torch.finfo(torch.float32).max / 4)

BLOCK_CLASSES = 8  # of a program at a time; each thread holds all of them
FORWARD_COLUMNS = 128  # label columns, one a thread
FORWARD_ROWS = 8  # label rows that share the logits of a cell, at most
BACKWARD_CELLS = 16  # cells of a row of cells
BACKWARD_LANES = 4  # threads that share the label columns of a cell, at most
BACKWARD_ROWS = 4  # label rows at a time, at most
SUM_BLOCK = 512


def why_not(logits: Tensor, labels: Tensor) -> Optional[str]:
    """Say why the kernels do not take these arguments; None where they do.

    Args:
        logits: (B, C, h, w).
        labels: (B, H, W).
    """
    if logits.dtype not in FLOATS:
        return f'the logits are {str(logits.dtype).replace("torch.", "")}'
    if logits.size(0) > MOST_IMAGES:
        return f'the batch has more than {MOST_IMAGES} images'
    if logits.size(1) > MOST_IMAGES * BLOCK_CLASSES:
        return f'there are more than {MOST_IMAGES * BLOCK_CLASSES} classes'
    return None


def forward(logits: Tensor, labels: Tensor, align_corners: bool,
            ignore_index: int) -> Tuple[Tensor, Tensor, Tensor]:
    """Compute losses, hits and logsumexp, (B, H, W) each: float32, bool, float32.

    A hit is a pixel whose label has the largest logit. An ignored pixel has loss 0
    and no hit; one whose label is no class has loss NaN and no hit.

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
    tiles = triton.cdiv(labels.size(2), FORWARD_COLUMNS)
    with _on_device(logits):
        upsampled_cross_entropy_forward[(tiles * height, batch)](
            logits, labels, losses, hits, logsumexp,
            rows.first, rows.weight, columns.before, columns.weight,
            *logits.stride(), *labels.stride(),
            classes, height, width, labels.size(1), labels.size(2), ignore_index,
            BLOCK_CLASSES=BLOCK_CLASSES, BLOCK_ROWS=min(rows.usual, FORWARD_ROWS),
            BLOCK_COLUMNS=FORWARD_COLUMNS, num_warps=4)
    return losses, hits, logsumexp


def backward(grad: Tensor, logits: Tensor, labels: Tensor, logsumexp: Tensor,
             align_corners: bool, ignore_index: int) -> Tensor:
    """Compute the gradient of the logits, (B, C, h, w), contiguous, in their type.

    A pixel gives grad * (softmax - [class is the label]); an ignored one gives 0,
    one whose label is no class gives NaN.

    Args:
        grad: of the losses, (B, H, W), any strides.
        logits, labels, align_corners, ignore_index: of ``forward``.
        logsumexp: what ``forward`` returned, (B, H, W).
    """
    batch, classes, height, width = logits.shape
    rows, columns = _axes(logits, labels, align_corners)
    partial_sum = logits.new_empty((4, *logits.shape), dtype=torch.float32)
    grad_logits = logits.new_empty(logits.shape)
    tiles = triton.cdiv(width, BACKWARD_CELLS)
    grid = tiles * height, triton.cdiv(classes, BLOCK_CLASSES), batch
    with _on_device(logits):
        upsampled_cross_entropy_backward[grid](
            grad, logits, labels, logsumexp, partial_sum,
            rows.first, rows.weight, columns.first, columns.weight,
            *grad.stride(), *logits.stride(), *labels.stride(), *logsumexp.stride(),
            batch, classes, height, width, ignore_index,
            BLOCK_CLASSES=BLOCK_CLASSES, BLOCK_CELLS=BACKWARD_CELLS,
            BLOCK_LANES=min(columns.usual, BACKWARD_LANES),
            BLOCK_ROWS=min(rows.usual, BACKWARD_ROWS), num_warps=2)
        add_partial_sums[(triton.cdiv(grad_logits.numel(), SUM_BLOCK), )](
            partial_sum, grad_logits, grad_logits.numel(), height, width,
            BLOCK=SUM_BLOCK, num_warps=4)
    return grad_logits


# --- Where the label rows and columns lie --------------------------------------


class Axis(NamedTuple):
    """Where the ``outputs`` of an axis lie between its ``inputs``."""
    before: Tensor  # (outputs, ), int32: index of the input before
    weight: Tensor  # (outputs, ), float32: of the input after; the other has the rest
    first: Tensor  # (inputs + 1, ), int32: first output of each cell, then outputs
    usual: int  # outputs of a cell, rounded up to a power of two


def _axes(logits: Tensor, labels: Tensor, align_corners: bool) -> Tuple[Axis, Axis]:
    """Return the axis of the rows and that of the columns."""
    return tuple(_axis(logits.size(dim), labels.size(dim - 1), bool(align_corners),
                       logits.device) for dim in (2, 3))


@lru_cache(maxsize=128)
def _axis(inputs: int, outputs: int, align_corners: bool,
          device: torch.device) -> Axis:
    """Make the tables of an axis, once: sending them to a GPU waits for it.

    The weights are those that PyTorch's interpolation gives an identity matrix.
    """
    identity = torch.eye(inputs, dtype=torch.float32, device='cpu')
    weights = F.interpolate(  # (inputs, outputs)
        identity[None], outputs, mode='linear', align_corners=align_corners)[0]
    before = weights.ne(0).int().argmax(0)
    weight = F.pad(weights, (0, 0, 0, 1)).gather(0, before[None] + 1)[0]
    first = torch.searchsorted(before, torch.arange(inputs + 1, device='cpu'))
    usual = triton.next_power_of_2(triton.cdiv(outputs, inputs))
    return Axis(before.int().to(device), weight.to(device), first.int().to(device),
                usual)


def _on_device(logits: Tensor):
    """Make the GPU of the logits the one that kernels start on."""
    return torch.cuda.device(logits.device if logits.is_cuda else -1)


# --- Kernels -------------------------------------------------------------------


@triton.jit
def _load_log2(pointers, mask):
    """Load logits in log2 units, within +-LARGEST; NaN stays NaN."""
    values = tl.load(pointers, mask=mask, other=0.0).to(tl.float32) * LOG2_E
    values = tl.minimum(values, LARGEST, propagate_nan=tl.PropagateNan.ALL)
    return tl.maximum(values, -LARGEST, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _between(before, after, weight):
    """Interpolate; written as one operation so that its rounding never varies."""
    return tl.fma(weight, after - before, before)


@triton.jit
def upsampled_cross_entropy_forward(
        logits,  # (B, C, h, w), float32, float16 or bfloat16
        labels,  # (B, H, W), an integer type
        losses,  # (B, H, W), float32, contiguous
        hits,  # (B, H, W), bool, contiguous
        logsumexp,  # (B, H, W), float32, contiguous
        row_first,  # (h + 1, ), int32
        row_weight,  # (H, ), float32
        column_before,  # (W, ), int32
        column_weight,  # (W, ), float32
        logits_stride_b, logits_stride_c, logits_stride_h, logits_stride_w,
        labels_stride_b, labels_stride_h, labels_stride_w,
        classes, height, width, label_height, label_width, ignore_index,
        BLOCK_CLASSES: tl.constexpr, BLOCK_ROWS: tl.constexpr,
        BLOCK_COLUMNS: tl.constexpr):
    """Compute a tile of label columns of one row of cells of one image.

    A program reads four logits of a class for each label column, interpolates them
    along the columns once, and along the rows for BLOCK_ROWS label rows.
    """
    tiles = tl.cdiv(label_width, BLOCK_COLUMNS)
    cell = tl.program_id(0) // tiles
    image = tl.program_id(1).to(tl.int64)
    x = tl.program_id(0) % tiles * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    in_row = x < label_width  # (X, )
    left = tl.load(column_before + x, mask=in_row, other=0)
    weight_x = tl.load(column_weight + x, mask=in_row, other=0.0)
    upper = logits + image * logits_stride_b + cell.to(tl.int64) * logits_stride_h
    lower = upper + (tl.minimum(cell + 1, height - 1) - cell) * logits_stride_h
    to_left = left.to(tl.int64) * logits_stride_w  # (X, )
    to_right = tl.minimum(left + 1, width - 1).to(tl.int64) * logits_stride_w

    last_row = tl.load(row_first + cell + 1)
    for row in range(tl.load(row_first + cell), last_row, BLOCK_ROWS):
        y = row + tl.arange(0, BLOCK_ROWS)
        weight_y = tl.load(row_weight + y, mask=y < last_row, other=0.0)  # (Y, )
        largest = tl.full((BLOCK_ROWS, BLOCK_COLUMNS), float('-inf'), tl.float32)
        total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
        for start in range(0, classes, BLOCK_CLASSES):
            c = start + tl.arange(0, BLOCK_CLASSES)[:, None]  # (C, 1)
            real = (c < classes) & in_row[None, :]  # (C, X)
            offset = c.to(tl.int64) * logits_stride_c
            above = _between(  # (C, X)
                _load_log2(upper + offset + to_left[None, :], real),
                _load_log2(upper + offset + to_right[None, :], real),
                weight_x[None, :])
            below = _between(
                _load_log2(lower + offset + to_left[None, :], real),
                _load_log2(lower + offset + to_right[None, :], real),
                weight_x[None, :])
            above = tl.where(c < classes, above, float('-inf'))
            rise = tl.where(c < classes, below - above, 0.0)
            scores = tl.fma(weight_y[:, None, None], rise[None, :, :],
                            above[None, :, :])  # (Y, C, X)
            before = largest
            largest = tl.maximum(before, tl.max(scores, axis=1))
            powers = tl.exp2(scores - largest[:, None, :])
            total = total * tl.exp2(before - largest) + tl.sum(powers, axis=1)

        inside = (y < last_row)[:, None] & in_row[None, :]  # (Y, X)
        label = tl.load(
            labels + image * labels_stride_b
            + y.to(tl.int64)[:, None] * labels_stride_h
            + x.to(tl.int64)[None, :] * labels_stride_w, mask=inside, other=0)
        label = label.to(tl.int64)
        valid = (label >= 0) & (label < classes)
        offset = tl.where(valid, label, 0) * logits_stride_c
        # The same operations as above, so that the largest score equals itself.
        above = _between(
            _load_log2(upper + offset + to_left[None, :], inside),
            _load_log2(upper + offset + to_right[None, :], inside),
            weight_x[None, :])
        below = _between(
            _load_log2(lower + offset + to_left[None, :], inside),
            _load_log2(lower + offset + to_right[None, :], inside),
            weight_x[None, :])
        picked = _between(above, below, weight_y[:, None])
        ignored = label == ignore_index
        log2_total = tl.log2(total)
        loss = (largest - picked + log2_total) * LN_2
        loss = tl.where(valid, loss, float('nan'))
        out = ((image * label_height + y.to(tl.int64)[:, None]) * label_width
               + x[None, :])
        tl.store(losses + out, tl.where(ignored, 0.0, loss), mask=inside)
        tl.store(logsumexp + out, (largest + log2_total) * LN_2, mask=inside)
        hit = (picked >= largest) & (total == total) & valid & (label != ignore_index)
        tl.store(hits + out, hit, mask=inside)


@triton.jit
def upsampled_cross_entropy_backward(
        grad,  # (B, H, W), of the losses
        logits,  # (B, C, h, w), float32, float16 or bfloat16
        labels,  # (B, H, W), an integer type
        logsumexp,  # (B, H, W), float32
        partial_sum,  # (4, B, C, h, w), float32, contiguous
        row_first,  # (h + 1, ), int32
        row_weight,  # (H, ), float32
        column_first,  # (w + 1, ), int32
        column_weight,  # (W, ), float32
        grad_stride_b, grad_stride_h, grad_stride_w,
        logits_stride_b, logits_stride_c, logits_stride_h, logits_stride_w,
        labels_stride_b, labels_stride_h, labels_stride_w,
        logsumexp_stride_b, logsumexp_stride_h, logsumexp_stride_w,
        batch, classes, height, width, ignore_index,
        BLOCK_CLASSES: tl.constexpr, BLOCK_CELLS: tl.constexpr,
        BLOCK_LANES: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """Sum the gradients of a tile of cells, for each of the cells' four logits.

    The partial sums of a cell are those of its upper left, upper right, lower left
    and lower right logit. BLOCK_LANES label columns of a cell are computed at once.
    """
    tiles = tl.cdiv(width, BLOCK_CELLS)
    cell = tl.program_id(0) // tiles
    image = tl.program_id(2).to(tl.int64)
    j = tl.program_id(0) % tiles * BLOCK_CELLS + tl.arange(0, BLOCK_CELLS)
    c = tl.program_id(1) * BLOCK_CLASSES + tl.arange(0, BLOCK_CLASSES)
    real = (c < classes)[:, None] & (j < width)[None, :]  # (C, J)
    upper = (logits + image * logits_stride_b + cell.to(tl.int64) * logits_stride_h
             + c.to(tl.int64)[:, None] * logits_stride_c)
    lower = upper + (tl.minimum(cell + 1, height - 1) - cell) * logits_stride_h
    to_left = j.to(tl.int64)[None, :] * logits_stride_w
    to_right = tl.minimum(j + 1, width - 1).to(tl.int64)[None, :] * logits_stride_w
    upper_left = _load_log2(upper + to_left, real)[:, :, None]  # (C, J, 1)
    upper_right = _load_log2(upper + to_right, real)[:, :, None]
    lower_left = _load_log2(lower + to_left, real)[:, :, None]
    lower_right = _load_log2(lower + to_right, real)[:, :, None]

    shape: tl.constexpr = (BLOCK_CLASSES, BLOCK_CELLS, BLOCK_LANES)
    sum_upper_left = tl.zeros(shape, tl.float32)
    sum_upper_right = tl.zeros(shape, tl.float32)
    sum_lower_left = tl.zeros(shape, tl.float32)
    sum_lower_right = tl.zeros(shape, tl.float32)
    first = tl.load(column_first + j, mask=j < width, other=0)  # (J, )
    last = tl.load(column_first + j + 1, mask=j < width, other=0)
    first_row = tl.load(row_first + cell)
    last_row = tl.load(row_first + cell + 1)
    grad += image * grad_stride_b
    labels += image * labels_stride_b
    logsumexp += image * logsumexp_stride_b
    for step in range(0, tl.max(last - first, axis=0), BLOCK_LANES):
        x = first[:, None] + step + tl.arange(0, BLOCK_LANES)[None, :]  # (J, L)
        in_cell = x < last[:, None]
        weight_x = tl.load(column_weight + x, mask=in_cell, other=0.0)[None, :, :]
        # A column outside the cell must not make NaN of a logit that is NaN.
        above = tl.where(in_cell[None, :, :],
                         _between(upper_left, upper_right, weight_x), 0.0)
        below = tl.where(in_cell[None, :, :],
                         _between(lower_left, lower_right, weight_x), 0.0)
        rise = below - above  # (C, J, L)
        sum_upper = tl.zeros(shape, tl.float32)
        sum_lower = tl.zeros(shape, tl.float32)
        for row in range(first_row, last_row, BLOCK_ROWS):
            y = row + tl.arange(0, BLOCK_ROWS)
            weight_y = tl.load(row_weight + y, mask=y < last_row,
                               other=0.0)[:, None, None]  # (Y, 1, 1)
            inside = (y < last_row)[:, None, None] & in_cell[None, :, :]  # (Y, J, L)
            long_y = y.to(tl.int64)[:, None, None]
            long_x = x.to(tl.int64)[None, :, :]
            label = tl.load(labels + long_y * labels_stride_h
                            + long_x * labels_stride_w, mask=inside, other=0)
            label = label.to(tl.int64)
            scale = tl.load(grad + long_y * grad_stride_h + long_x * grad_stride_w,
                            mask=inside, other=0.0).to(tl.float32)
            log2_sum = tl.load(
                logsumexp + long_y * logsumexp_stride_h
                + long_x * logsumexp_stride_w, mask=inside,
                other=float('inf')) * LOG2_E
            valid = (label >= 0) & (label < classes)
            scale = tl.where(valid, scale, float('nan'))
            scale = tl.where(label == ignore_index, 0.0, scale)
            scale = tl.where(inside, scale, 0.0)
            label = tl.where(valid, label, -1).to(tl.int32)
            scores = tl.fma(weight_y[:, None, :, :], rise[None, :, :, :],
                            above[None, :, :, :])  # (Y, C, J, L)
            chance = tl.exp2(scores - log2_sum[:, None, :, :])
            chance = tl.where(label[:, None, :, :] == c[None, :, None, None],
                              chance - 1.0, chance)
            lower_scale = scale * weight_y  # (Y, J, L)
            upper_scale = scale - lower_scale
            sum_upper += tl.sum(chance * upper_scale[:, None, :, :], axis=0)
            sum_lower += tl.sum(chance * lower_scale[:, None, :, :], axis=0)
        sum_upper_left += sum_upper * (1.0 - weight_x)
        sum_upper_right += sum_upper * weight_x
        sum_lower_left += sum_lower * (1.0 - weight_x)
        sum_lower_right += sum_lower * weight_x

    out = (((image * classes + c.to(tl.int64)[:, None]) * height + cell) * width
           + j[None, :])
    corner = tl.cast(batch, tl.int64) * classes * height * width
    tl.store(partial_sum + out, tl.sum(sum_upper_left, axis=2), mask=real)
    tl.store(partial_sum + corner + out, tl.sum(sum_upper_right, axis=2), mask=real)
    tl.store(partial_sum + 2 * corner + out, tl.sum(sum_lower_left, axis=2),
             mask=real)
    tl.store(partial_sum + 3 * corner + out, tl.sum(sum_lower_right, axis=2),
             mask=real)


@triton.jit
def add_partial_sums(
        partial_sum,  # (4, B, C, h, w), float32, contiguous
        grad_logits,  # (B, C, h, w), contiguous
        size, height, width, BLOCK: tl.constexpr):
    """Add to each logit the partial sums of the four cells that touch it."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < size
    has_left = inside & (index % width > 0)
    above = index // width % height > 0
    total = tl.load(partial_sum + index, mask=inside, other=0.0)
    total += tl.load(partial_sum + size + index - 1, mask=has_left, other=0.0)
    upper = partial_sum + 2 * tl.cast(size, tl.int64) - width + index
    total += tl.load(upper, mask=inside & above, other=0.0)
    total += tl.load(upper + size - 1, mask=has_left & above, other=0.0)
    tl.store(grad_logits + index, total, mask=inside)
