"""Compute the cross entropy of upsampled logits in bands of rows, on any device.

A band is a run of rows of the label map, small enough that its logits stay in
the cache: they are interpolated, used and dropped, forward and again backward.
Columns are interpolated first, which leaves a map (h, C, W) of as many rows as
the logits have. A row of the label map is a weighted sum of two of those, so a
band is one small matrix product, and its gradient another.

Logits are multiplied by log2(e) here, because a processor computes powers of two
several times faster than powers of e.
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
    """Compute losses, hits and logsumexp, (B, H, W) each, of logits (B, C, h, w).

    Labels (B, H, W) outside [0, C) that are not ignored give a loss of NaN. A hit
    is a pixel where no class has a larger logit than the label's. logsumexp, the
    logarithm of the sum of exponentials over the classes, is for the backward pass.
    """
    losses = _wide(logits).new_empty(labels.shape)
    logsumexp = torch.empty_like(losses)
    hits = torch.empty_like(losses, dtype=torch.bool)
    for image, target in enumerate(labels):
        upsampling = _upsampling(logits[image], target.shape, align_corners)
        for band, bits in upsampling.bands():  # bits (r, C, W)
            rows = band.rows
            index, ignored, invalid = _targets(
                target[rows], ignore_index, bits.size(1))
            picked = bits.gather(1, index).squeeze(1)  # (r, W)
            peak = bits.amax(1)
            rest = bits.sub_(peak.unsqueeze(1)).exp2_().sum(1).log2_()
            hits[image, rows] = (picked >= peak) & ~(ignored | invalid)
            logsumexp[image, rows] = (peak + rest).div_(LOG2_E)
            losses[image, rows] = (
                (peak - picked).add_(rest).div_(LOG2_E)
                .masked_fill_(ignored, 0).masked_fill_(invalid, math.nan))
    return losses, hits, logsumexp


def backward(grad: Tensor, logits: Tensor, labels: Tensor, logsumexp: Tensor,
             align_corners: bool, ignore_index: int) -> Tensor:
    """Compute the gradient of logits (B, C, h, w) from that of the losses (B, H, W).

    A pixel gives grad * (softmax - [class is the label]); an ignored one gives 0.
    ``logsumexp`` (B, H, W) is what :func:`forward` returned.
    """
    grad_logits = logits.new_empty(logits.shape)
    for image, target in enumerate(labels):
        upsampling = _upsampling(logits[image], target.shape, align_corners)
        for band, bits in upsampling.bands():
            rows = band.rows
            index, ignored, invalid = _targets(
                target[rows], ignore_index, bits.size(1))
            factor = (grad[image, rows].masked_fill(ignored, 0)
                      .masked_fill_(invalid, math.nan).unsqueeze(1))  # (r, 1, W)
            total = logsumexp[image, rows].mul(LOG2_E).unsqueeze(1)  # (r, 1, W)
            bits.sub_(total).exp2_().mul_(factor)
            upsampling.add_gradient(band, bits.scatter_add_(1, index, -factor))
        grad_logits[image] = upsampling.gradient()
    return grad_logits


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _targets(labels: Tensor, ignore_index: int,
             classes: int) -> Tuple[Tensor, Tensor, Tensor]:
    """Return the class ids to gather by, (r, 1, W), which pixels are ignored and
    which have an id that is no class, (r, W) each."""
    labels = labels.long()
    ignored = labels == ignore_index
    invalid = ((labels < 0) | (labels >= classes)) & ~ignored
    return labels.masked_fill(ignored | invalid, 0).unsqueeze(1), ignored, invalid


# --- Bilinear interpolation of one image, and its adjoint ---------------------


def _upsampling(logits: Tensor, size: torch.Size, align_corners: bool):
    """Prepare the interpolation of logits (C, h, w), times log2(e), to ``size``.

    On a GPU an image is one band: its launches cost more than its cache saves, and
    a matrix product may round to TF32 there.
    """
    kind = RowBands if logits.device.type == 'cpu' else WholeImage
    bits = _wide(logits) * LOG2_E
    # A weight of 0 times infinity is NaN; logits of masked classes come close.
    most = torch.finfo(bits.dtype).max / 4
    return kind(bits.clamp_(-most, most), tuple(size), align_corners)


class Band(NamedTuple):
    """Rows of the label map, and the rows of logits that they are sums of."""
    rows: slice  # r of H
    sources: slice  # n of h
    weights: Tensor  # (r, n)


class RowBands:
    """Interpolate logits times log2(e), (C, h, w), to (H, W) in bands of rows."""

    def __init__(self, bits: Tensor, size: Tuple[int, int],
                 align_corners: bool):
        self.size, self.narrow = size, bits.size(2)
        self.align_corners = align_corners
        self.columns = F.interpolate(  # (h, C, W)
            bits.transpose(0, 1), size[1], mode='linear',
            align_corners=align_corners)
        self.grad = None

    def bands(self) -> Iterator[Tuple[Band, Tensor]]:
        """Yield bands and their logits (r, C, W), which may be overwritten."""
        height, *rest = self.columns.shape
        for band in _bands(height, self.size[0], self.align_corners,
                           self.columns.dtype, self.step()):
            sources = self.columns[band.sources].flatten(1)
            yield band, torch.mm(band.weights, sources).view(-1, *rest)

    def step(self) -> int:
        """Return the rows of the label map in a band."""
        return min(MOST_ROWS, max(1, BAND_BYTES // self.columns[0].nbytes))

    def add_gradient(self, band: Band, grad: Tensor) -> None:
        """Add the gradient (r, C, W) of a band."""
        if self.grad is None:
            self.grad = torch.zeros_like(self.columns)
        self.grad[band.sources].flatten(1).addmm_(
            band.weights.t(), grad.flatten(1))

    def gradient(self) -> Tensor:
        """Return the gradient (C, h, w) of what :meth:`add_gradient` added."""
        h, c, wide = self.grad.shape
        return torch.ops.aten.upsample_linear1d_backward(
            self.grad, [wide], [h, c, self.narrow], self.align_corners,
            None).transpose(0, 1)


class WholeImage:
    """Interpolate an image as one band, as :class:`RowBands` does in several."""

    def __init__(self, bits: Tensor, size: Tuple[int, int],
                 align_corners: bool):
        self.bits, self.size, self.align_corners = bits, size, align_corners

    def bands(self) -> Iterator[Tuple[Band, Tensor]]:
        full = F.interpolate(
            self.bits.unsqueeze(0), self.size, mode='bilinear',
            align_corners=self.align_corners)[0]
        yield Band(slice(None), slice(None), None), full.transpose(0, 1)

    def add_gradient(self, band: Band, grad: Tensor) -> None:
        self.grad = grad

    def gradient(self) -> Tensor:
        return torch.ops.aten.upsample_bilinear2d_backward(
            self.grad.transpose(0, 1).unsqueeze(0), self.size,
            [1, *self.bits.shape], self.align_corners, None, None)[0]


@lru_cache(maxsize=32)
def _bands(low: int, high: int, align_corners: bool, dtype: torch.dtype,
           step: int) -> List[Band]:
    """Cut ``high`` rows that are interpolated from ``low`` into bands of ``step``.

    The weights are PyTorch's: its interpolation of the rows of an identity matrix.
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
