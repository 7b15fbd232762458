"""Find the pixels that MMSegmentation's hard example mining finds, without a sort."""
import math

import torch
from mmseg.structures import OHEMPixelSampler as StockOHEMPixelSampler
from torch import Tensor

from ..errors import ArgumentError
from ..ops import kth_largest, upsampled_cross_entropy
from .ohem import largest_weights
from .pixel_losses import (
    CrossEntropyReduction,
    PixelLosses,
    PixelWeighting,
    loss_modules,
    pixel_reduction,
)

__all__ = ['OHEMPixelSampler']

NEVER = -1.  # in place of the loss of an ignored pixel; losses are >= 0


class OHEMPixelSampler(StockOHEMPixelSampler, PixelWeighting):
    """Select the pixels that a decode head finds hard, to train on those alone.

    Has the arguments and numbers of MMSegmentation's sampler. A selection replaces
    the sort, and the host does not wait for a GPU. Without ``thresh``, pixels of
    equal loss at the last places have equal weights, which gives the same loss.

    Args:
        context: the decode head.
        thresh: a pixel is hard where the probability of its class is below this,
            or below that of pixel number ``min_kept`` in ascending order. None
            selects the pixels of the largest losses.
        min_kept: pixels to keep for each image.
    """

    def sample(self, seg_logit: Tensor, seg_label: Tensor) -> Tensor:
        """Return the weight of each pixel, (B, H, W), in the type of the logits.

        Args:
            seg_logit: (B, C, H, W).
            seg_label: (B, 1, H, W).

        Raises:
            ArgumentError: when their sizes differ, and when ``thresh`` is None and a
                loss of the head gives no losses of pixels.
        """
        if seg_logit.shape[2:] != seg_label.shape[2:] or seg_label.size(1) != 1:
            raise ArgumentError(
                'seg_label must be (B, 1, H, W) in the size of seg_logit '
                f'{tuple(seg_logit.shape)}, got {tuple(seg_label.shape)}')
        labels = seg_label.squeeze(1)  # (B, H, W)
        with torch.no_grad():
            if self.thresh is None:
                weights = self._largest(
                    self._losses_of_head(seg_logit, labels), labels)
            else:
                weights = self._below_threshold(upsampled_cross_entropy(
                    seg_logit, labels,
                    ignore_index=self.context.ignore_index), labels)
        return weights.to(seg_logit)

    def takes_pixels(self) -> bool:
        """Return whether :meth:`pixel_weights` can replace :meth:`sample`."""
        return self.thresh is not None or all(
            isinstance(pixel_reduction(loss), CrossEntropyReduction)
            for loss in loss_modules(self.context))

    @torch.no_grad()
    def pixel_weights(self, pixels: PixelLosses) -> Tensor:
        """Return the weight of each pixel, (B, H, W), in the type of the losses."""
        if self.thresh is not None:
            return self._below_threshold(pixels.losses, pixels.labels)
        return self._largest(sum(
            loss.loss_weight * pixels.weighted(loss.class_weight)
            for loss in loss_modules(self.context)), pixels.labels)

    def _losses_of_head(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the head's losses of logits (B, C, H, W), pixel by pixel."""
        losses = sum(
            loss(logits, labels, weight=None, reduction_override='none',
                 ignore_index=self.context.ignore_index)
            for loss in loss_modules(self.context))  # (B, H, W)
        if losses.shape != labels.shape:
            raise ArgumentError(
                'OHEMPixelSampler without thresh needs losses of pixels, which a '
                'loss_decode of the head does not give; set thresh')
        return losses

    def _kept(self, labels: Tensor) -> int:
        """Return the number of pixels to keep of labels (B, H, W)."""
        return min(self.min_kept * labels.size(0), labels.numel())

    def _below_threshold(self, losses: Tensor, labels: Tensor) -> Tensor:
        """Return 1 where the probability, exp(-loss), is below both thresholds."""
        valid = labels != self.context.ignore_index
        candidates = losses.masked_fill(~valid, NEVER)
        # Pixel number ``kept``, or the last valid one, counted from 0.
        least = torch.where(valid, losses, math.inf).amin()
        rank = min(self._kept(labels) + 1, losses.numel())
        limit = torch.maximum(kth_largest(candidates, rank), least)
        if self.thresh > 0:
            limit = limit.clamp(max=-math.log(self.thresh))
        return ((losses > limit) & valid).to(losses)

    def _largest(self, losses: Tensor, labels: Tensor) -> Tensor:
        """Return the weights of the largest losses (B, H, W), 0 where ignored."""
        ignored = labels == self.context.ignore_index
        return largest_weights(losses.masked_fill(ignored, NEVER),
                               self._kept(labels)).masked_fill(ignored, 0)
