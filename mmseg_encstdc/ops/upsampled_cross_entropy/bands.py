"""Compute the cross entropy of upsampled logits in bands of rows, on any device.

A band is a range of rows of the label map whose logits fit in the cache. They are
interpolated, used and discarded, forward and again backward. Columns are interpolated
first, for all rows of the logits: (h, C, W). A row of the label map is then a weighted
sum of two of these rows, so that a band is one small matrix product, and its gradient
another.

Scores are logits times log2(e), because a processor computes powers of two several
times faster than powers of e.
"""
import math
from functools import lru_cache
from typing import Iterator, List, NamedTuple, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['backward', 'forward']

LOG2_E = math.log2(math.e)
BAND_BYTES = 1 << 20  # of the logits of a band
MAX_ROWS = 256  # of a band, which limits the size of its weights


def forward(logits: Tensor, labels: Tensor, align_corners: bool,
            ignore_index: int) -> Tuple[Tensor, Tensor, Tensor]:
    """Compute losses, hits and logsumexp, (B, H, W) each, of logits (B, C, h, w).

    A label (B, H, W) that is neither in [0, C) nor ignored gives a loss of NaN. A hit
    is a pixel where no class has a larger logit than the label. logsumexp, over the
    classes, is for the backward pass.
    """
    losses = _as_float(logits).new_empty(labels.shape)
    logsumexp = torch.empty_like(losses)
    hits = torch.empty_like(losses, dtype=torch.bool)
    for image, target in enumerate(labels):
        interpolation = _interpolation(logits[image], target.shape, align_corners)
        for band, scores in interpolation.bands():  # scores (r, C, W)
            rows = band.rows
            index, ignored, invalid = _targets(
                target[rows], ignore_index, scores.size(1))
            label_score = scores.gather(1, index).squeeze(1)  # (r, W)
            largest = scores.amax(1)
            log2_sum = scores.sub_(largest.unsqueeze(1)).exp2_().sum(1).log2_()
            hits[image, rows] = (label_score >= largest) & ~(ignored | invalid)
            logsumexp[image, rows] = (largest + log2_sum).div_(LOG2_E)
            losses[image, rows] = (
                (largest - label_score).add_(log2_sum).div_(LOG2_E)
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
        interpolation = _interpolation(logits[image], target.shape, align_corners)
        for band, scores in interpolation.bands():
            rows = band.rows
            index, ignored, invalid = _targets(
                target[rows], ignore_index, scores.size(1))
            factor = (grad[image, rows].masked_fill(ignored, 0)
                      .masked_fill_(invalid, math.nan).unsqueeze(1))  # (r, 1, W)
            total = logsumexp[image, rows].mul(LOG2_E).unsqueeze(1)  # (r, 1, W)
            scores.sub_(total).exp2_().mul_(factor)
            interpolation.add_gradient(band, scores.scatter_add_(1, index, -factor))
        grad_logits[image] = interpolation.gradient()
    return grad_logits


def _as_float(logits: Tensor) -> Tensor:
    """Return float64 logits as they are, others as float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _targets(labels: Tensor, ignore_index: int,
             classes: int) -> Tuple[Tensor, Tensor, Tensor]:
    """Return class ids (r, 1, W), and masks of ignored and invalid pixels (r, W).

    An invalid label is neither a class nor ignored. The class id of ignored and
    invalid pixels is 0.
    """
    labels = labels.long()
    ignored = labels == ignore_index
    invalid = ((labels < 0) | (labels >= classes)) & ~ignored
    return labels.masked_fill(ignored | invalid, 0).unsqueeze(1), ignored, invalid


# --- Bilinear interpolation of one image, and its adjoint ---------------------


def _interpolation(logits: Tensor, size: torch.Size, align_corners: bool
                   ) -> Union['RowBands', 'WholeImage']:
    """Prepare the interpolation of the scores of logits (C, h, w) to ``size``.

    On a GPU an image is one band, because more launches would cost more time than
    the cache saves, and a matrix product may be rounded to TF32.
    """
    cls = RowBands if logits.device.type == 'cpu' else WholeImage
    scores = _as_float(logits) * LOG2_E
    # Plus infinity gives NaN, as in a softmax.
    scores.masked_fill_(scores == math.inf, math.nan)
    # A weight of 0 times infinity is NaN, so masked classes get a finite score.
    limit = torch.finfo(scores.dtype).max / 4
    return cls(scores.clamp_(-limit, limit), tuple(size), align_corners)


class Band(NamedTuple):
    """Describe rows of the label map as weighted sums of rows of the logits."""
    rows: slice  # r of H
    sources: slice  # n of h
    weights: Tensor  # (r, n)


class RowBands:
    """Interpolate scores (C, h, w) to ``size`` (H, W) in bands of rows."""

    def __init__(self, scores: Tensor, size: Tuple[int, int],
                 align_corners: bool):
        self.size, self.width = size, scores.size(2)
        self.align_corners = align_corners
        self.columns = F.interpolate(  # (h, C, W)
            scores.transpose(0, 1), size[1], mode='linear',
            align_corners=align_corners)
        self.grad = None

    def bands(self) -> Iterator[Tuple[Band, Tensor]]:
        """Yield bands and their scores (r, C, W), which may be overwritten."""
        height, *sizes = self.columns.shape
        step = min(MAX_ROWS, max(1, BAND_BYTES // self.columns[0].nbytes))
        for band in _row_bands(height, self.size[0], self.align_corners,
                               self.columns.dtype, step):
            sources = self.columns[band.sources].flatten(1)
            yield band, torch.mm(band.weights, sources).view(-1, *sizes)

    def add_gradient(self, band: Band, grad: Tensor) -> None:
        """Add the gradient (r, C, W) of a band."""
        if self.grad is None:
            self.grad = torch.zeros_like(self.columns)
        self.grad[band.sources].flatten(1).addmm_(
            band.weights.t(), grad.flatten(1))

    def gradient(self) -> Tensor:
        """Return the sum of the added gradients, for the scores (C, h, w)."""
        h, c, label_width = self.grad.shape
        return torch.ops.aten.upsample_linear1d_backward(
            self.grad, [label_width], [h, c, self.width], self.align_corners,
            None).transpose(0, 1)


class WholeImage:
    """Upsample all rows at once, with the methods of :class:`RowBands`."""

    def __init__(self, scores: Tensor, size: Tuple[int, int],
                 align_corners: bool):
        self.scores, self.size, self.align_corners = scores, size, align_corners

    def bands(self) -> Iterator[Tuple[Band, Tensor]]:
        full = F.interpolate(
            self.scores.unsqueeze(0), self.size, mode='bilinear',
            align_corners=self.align_corners)[0]
        yield Band(slice(None), slice(None), None), full.transpose(0, 1)

    def add_gradient(self, band: Band, grad: Tensor) -> None:
        self.grad = grad

    def gradient(self) -> Tensor:
        return torch.ops.aten.upsample_bilinear2d_backward(
            self.grad.transpose(0, 1).unsqueeze(0), self.size,
            [1, *self.scores.shape], self.align_corners, None, None)[0]


@lru_cache(maxsize=32)
def _row_bands(inputs: int, outputs: int, align_corners: bool, dtype: torch.dtype,
               step: int) -> List[Band]:
    """Divide ``outputs`` rows, interpolated from ``inputs``, into bands of ``step``.

    The weights are PyTorch's interpolation of an identity matrix.
    """
    weights = F.interpolate(
        torch.eye(inputs, dtype=dtype).view(1, 1, inputs, inputs), (outputs, inputs),
        mode='bilinear', align_corners=align_corners)[0, 0]  # (outputs, inputs)
    bands = []
    for start in range(0, outputs, step):
        rows = slice(start, min(start + step, outputs))
        used = weights[rows].any(0).nonzero()
        sources = slice(int(used.min()), int(used.max()) + 1)
        bands.append(Band(rows, sources, weights[rows, sources].clone()))
    return bands
