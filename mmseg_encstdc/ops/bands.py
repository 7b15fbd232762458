"""Cross entropy of upsampled logits, a band of rows at a time.

A band is a run of rows of the label map, small enough that its logits stay in
the cache: they are interpolated, used and forgotten, forward and again backward.
Columns are interpolated first, which leaves a map (h, C, W) of as many rows as
the logits have; a row of the label map is a mixture of two of those, so a band
is one small matrix product, and its gradient another.

Logits are counted in bits (times log2 e) while they are here, because a processor
takes powers of two several times faster than powers of e.
"""
import math
from functools import lru_cache
from typing import Iterator, List, NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['backward', 'forward']

LOG2_E = math.log2(math.e)
BAND_BYTES = 1 << 20  # of the logits of a band
MOST_ROWS = 256  # of a band, which bounds what its weights take


def forward(logits: Tensor, labels: Tensor, align_corners: bool,
            ignore_index: int) -> Tuple[Tensor, Tensor, Tensor]:
    """Losses, hits and normalisers, (B, H, W) each.

    Args:
        logits (Tensor): (B, C, h, w).
        labels (Tensor): class ids, (B, H, W), any integer type. Ids outside
            [0, C) that are not ignored give NaN.
        align_corners (bool): of the interpolation.
        ignore_index (int): id of pixels whose loss is 0.

    Returns:
        tuple[Tensor]: the losses; whether no class has a larger logit than the
            label's (bool); and the logarithm of the sum of exponentials over the
            classes, for the backward pass. float32, for float64 logits float64.
    """
    losses = _wide(logits).new_empty(labels.shape)
    normalisers = torch.empty_like(losses)
    hits = torch.empty_like(losses, dtype=torch.bool)
    for image, target in enumerate(labels):
        upsampling = _upsampling(logits[image], target.shape, align_corners)
        for band, bits in upsampling.bands():  # bits (r, C, W)
            rows = band.rows
            index, ignored, wrong = _targets(
                target[rows], ignore_index, bits.size(1))
            picked = bits.gather(1, index).squeeze(1)  # (r, W)
            peak = bits.amax(1)
            rest = bits.sub_(peak.unsqueeze(1)).exp2_().sum(1).log2_()
            hits[image, rows] = (picked >= peak) & ~(ignored | wrong)
            normalisers[image, rows] = (peak + rest).div_(LOG2_E)
            losses[image, rows] = (
                (peak - picked).add_(rest).div_(LOG2_E)
                .masked_fill_(ignored, 0).masked_fill_(wrong, math.nan))
    return losses, hits, normalisers


def backward(grad: Tensor, logits: Tensor, labels: Tensor, normalisers: Tensor,
             align_corners: bool, ignore_index: int) -> Tensor:
    """Gradient of the logits, (B, C, h, w), for ``grad`` (B, H, W) of the losses.

    A pixel gives grad * (softmax - [class is the label]), ignored ones nothing.
    """
    grad_logits = logits.new_empty(logits.shape)
    for image, target in enumerate(labels):
        upsampling = _upsampling(logits[image], target.shape, align_corners)
        for band, bits in upsampling.bands():
            rows = band.rows
            index, ignored, wrong = _targets(
                target[rows], ignore_index, bits.size(1))
            pull = (grad[image, rows].masked_fill(ignored, 0)
                    .masked_fill_(wrong, math.nan).unsqueeze(1))  # (r, 1, W)
            total = normalisers[image, rows].mul(LOG2_E).unsqueeze(1)
            bits.sub_(total).exp2_().mul_(pull)
            upsampling.take_back(band, bits.scatter_add_(1, index, -pull))
        grad_logits[image] = upsampling.gradient()
    return grad_logits


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _targets(labels: Tensor, ignore_index: int,
             classes: int) -> Tuple[Tensor, Tensor, Tensor]:
    """Indices (r, 1, W) to gather by, and which pixels (r, W) have no class:
    because they are ignored, or because their id is none."""
    labels = labels.long()
    ignored = labels == ignore_index
    wrong = ((labels < 0) | (labels >= classes)) & ~ignored
    return labels.masked_fill(ignored | wrong, 0).unsqueeze(1), ignored, wrong


# --- Bilinear interpolation of one image, and its adjoint ---------------------


def _upsampling(logits: Tensor, size: torch.Size, align_corners: bool):
    """The interpolation of logits (C, h, w) to ``size``, in bits.

    Off a CPU there is no cache to stay in and every launch costs: an image is
    one band there. (Nor would a product do, which may round to TF32.)
    """
    kind = RowBands if logits.device.type == 'cpu' else WholeImage
    bits = _wide(logits) * LOG2_E
    # A weight of 0 times infinity is NaN; logits of masked classes come close.
    most = torch.finfo(bits.dtype).max / 4
    return kind(bits.clamp_(-most, most), tuple(size), align_corners)


class Band(NamedTuple):
    """Rows of the label map, and how they come from rows of the logits."""
    rows: slice  # r of H
    sources: slice  # n of h
    weights: Tensor  # (r, n)


class RowBands:
    """Interpolation in bands of rows.

    Args:
        bits (Tensor): (C, h, w).
        size (tuple[int]): (H, W).
        align_corners (bool): of the interpolation.
    """

    def __init__(self, bits: Tensor, size: Tuple[int, int],
                 align_corners: bool):
        self.size, self.narrow = size, bits.size(2)
        self.align_corners = align_corners
        self.columns = F.interpolate(  # (h, C, W)
            bits.transpose(0, 1), size[1], mode='linear',
            align_corners=align_corners)
        self.grad = None

    def bands(self) -> Iterator[Tuple[Band, Tensor]]:
        """Bands and their logits (r, C, W), which may be overwritten."""
        height, *rest = self.columns.shape
        for band in _bands(height, self.size[0], self.align_corners,
                           self.columns.dtype, self.step()):
            sources = self.columns[band.sources].flatten(1)
            yield band, torch.mm(band.weights, sources).view(-1, *rest)

    def step(self) -> int:
        """Rows of the label map in a band."""
        return min(MOST_ROWS, max(1, BAND_BYTES // self.columns[0].nbytes))

    def take_back(self, band: Band, grad: Tensor) -> None:
        """Add the gradient (r, C, W) of a band."""
        if self.grad is None:
            self.grad = torch.zeros_like(self.columns)
        self.grad[band.sources].flatten(1).addmm_(
            band.weights.t(), grad.flatten(1))

    def gradient(self) -> Tensor:
        """Gradient of (C, h, w), of all that was taken back."""
        h, c, wide = self.grad.shape
        return torch.ops.aten.upsample_linear1d_backward(
            self.grad, [wide], [h, c, self.narrow], self.align_corners,
            None).transpose(0, 1)


class WholeImage:
    """The same arguments and methods, with the image as its one band."""

    def __init__(self, bits: Tensor, size: Tuple[int, int],
                 align_corners: bool):
        self.bits, self.size, self.align_corners = bits, size, align_corners

    def bands(self) -> Iterator[Tuple[Band, Tensor]]:
        full = F.interpolate(
            self.bits.unsqueeze(0), self.size, mode='bilinear',
            align_corners=self.align_corners)[0]
        yield Band(slice(None), slice(None), None), full.transpose(0, 1)

    def take_back(self, band: Band, grad: Tensor) -> None:
        self.grad = grad

    def gradient(self) -> Tensor:
        return torch.ops.aten.upsample_bilinear2d_backward(
            self.grad.transpose(0, 1).unsqueeze(0), self.size,
            [1, *self.bits.shape], self.align_corners, None, None)[0]


@lru_cache(maxsize=32)
def _bands(low: int, high: int, align_corners: bool, dtype: torch.dtype,
           step: int) -> List[Band]:
    """Bands of ``step`` rows out of ``high`` that come from ``low``.

    The weights are those that the framework's own interpolation gives the rows
    of an identity matrix.
    """
    weights = F.interpolate(
        torch.eye(low, dtype=dtype).view(1, 1, low, low), (high, low),
        mode='bilinear', align_corners=align_corners)[0, 0]  # (high, low)
    bands = []
    for start in range(0, high, step):
        rows = slice(start, min(start + step, high))
        used = weights[rows].any(0).nonzero()
        sources = slice(int(used.min()), int(used.max()) + 1)
        bands.append(Band(rows, sources, weights[rows, sources].clone()))
    return bands
