"""Replace MMSegmentation's sampler of hard pixels by one without a sort."""
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
    two_channels,
)

__all__ = ['OHEMPixelSampler']

IGNORED_LOSS = -1.  # below every loss, so that ignored pixels are selected last


class OHEMPixelSampler(StockOHEMPixelSampler, PixelWeighting):
    """Select the hard pixels of a batch, to train a decode head on those only.

    Has the arguments and numbers of MMSegmentation's sampler, but neither sorts nor
    makes the host wait for a GPU. Without ``thresh``, the pixels whose loss equals the
    smallest selected one have equal weights, which gives the same loss. The probability
    of one channel is its sigmoid; MMSegmentation's sampler fails there.

    Args:
        context: the decode head.
        thresh: a pixel is hard where the probability of its class is below this, or
            below the probability of pixel number ``min_kept`` in ascending order.
            None selects the largest losses.
        min_kept: pixels to keep for each image.
    """

    def sample(self, seg_logit: Tensor, seg_label: Tensor) -> Tensor:
        """Return the weight of each pixel, (B, H, W), in the type of the logits.

        Args:
            seg_logit: (B, C, H, W).
            seg_label: (B, 1, H, W).

        Raises:
            ArgumentError: when the sizes differ, and when ``thresh`` is None and a
                loss of the head gives no loss per pixel.
        """
        if seg_logit.shape[2:] != seg_label.shape[2:] or seg_label.size(1) != 1:
            raise ArgumentError(
                'seg_label must be (B, 1, H, W) in the size of seg_logit '
                f'{tuple(seg_logit.shape)}, got {tuple(seg_label.shape)}')
        labels = seg_label.squeeze(1)  # (B, H, W)
        with torch.no_grad():
            if self.thresh is None:
                weights = self._largest(self._head_losses(seg_logit, labels), labels)
            else:
                losses = upsampled_cross_entropy(
                    two_channels(seg_logit), labels,
                    ignore_index=self.context.ignore_index)
                weights = self._below_threshold(losses, labels)
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

    def _head_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the head's losses for each pixel, (B, H, W)."""
        losses = sum(
            loss(logits, labels, weight=None, reduction_override='none',
                 ignore_index=self.context.ignore_index)
            for loss in loss_modules(self.context))
        if losses.shape != labels.shape:
            raise ArgumentError(
                'OHEMPixelSampler without thresh needs a loss per pixel, which a '
                'loss_decode of the head does not give; set thresh')
        return losses

    def _kept(self, labels: Tensor) -> int:
        """Return the number of pixels of labels (B, H, W) to keep."""
        return min(self.min_kept * labels.size(0), labels.numel())

    def _below_threshold(self, losses: Tensor, labels: Tensor) -> Tensor:
        """Return 1 for hard pixels, whose probability is exp(-loss), else 0."""
        valid = labels != self.context.ignore_index
        candidates = losses.masked_fill(~valid, IGNORED_LOSS)
        # The loss of pixel number ``kept``, counted from 0, or of the last valid one.
        smallest = torch.where(valid, losses, math.inf).amin()
        rank = min(self._kept(labels) + 1, losses.numel())
        limit = torch.maximum(kth_largest(candidates, rank), smallest)
        if self.thresh > 0:
            limit = limit.clamp(max=-math.log(self.thresh))
        return ((losses > limit) & valid).to(losses)

    def _largest(self, losses: Tensor, labels: Tensor) -> Tensor:
        """Return the weights of the largest losses (B, H, W), 0 where ignored."""
        ignored = labels == self.context.ignore_index
        weights = largest_weights(
            losses.masked_fill(ignored, IGNORED_LOSS), self._kept(labels))
        return weights.masked_fill(ignored, 0)
