"""MMSegmentation's hard example mining, without its sorts."""
import math
from typing import Optional

import torch
from mmseg.structures import OHEMPixelSampler as StockOHEMPixelSampler
from torch import Tensor

from ..errors import ArgumentError
from ..ops import kth_largest, upsampled_cross_entropy
from .pixel_map import is_plain_cross_entropy, losses_of, weighed

__all__ = ['OHEMPixelSampler']

NEVER = -1.  # in place of the loss of an ignored pixel; losses are >= 0


class OHEMPixelSampler(StockOHEMPixelSampler):
    """Which pixels a decode head trains on: those that it finds hard.

    MMSegmentation's sampler, with its arguments and numbers. A selection takes
    the place of the sort, nothing waits for a GPU, and a head that has the cross
    entropy of each pixel at hand asks :meth:`of_map` and needs no logits at the
    size of the labels. Where pixels tie for the last places without ``thresh``,
    they share them, which gives the same loss.

    Args:
        context (nn.Module): the decode head.
        thresh (float, optional): a pixel is hard where the probability of its
            class is below this, or below that of pixel number ``min_kept`` in
            ascending order. Default: None, the pixels of the largest losses.
        min_kept (int): pixels to keep for each image. Default: 100000.
    """

    def sample(self, seg_logit: Tensor, seg_label: Tensor) -> Tensor:
        """Weight of each pixel, (B, H, W), in the type of the logits.

        Args:
            seg_logit (Tensor): (B, C, H, W).
            seg_label (Tensor): (B, 1, H, W).

        Raises:
            ArgumentError: when their sizes differ.
        """
        if seg_logit.shape[2:] != seg_label.shape[2:] or seg_label.size(1) != 1:
            raise ArgumentError(
                'seg_label must be (B, 1, H, W) in the size of seg_logit '
                f'{tuple(seg_logit.shape)}, got {tuple(seg_label.shape)}')
        labels = seg_label.squeeze(1)
        with torch.no_grad():
            if self.thresh is None:
                losses = sum(
                    loss(seg_logit, labels, weight=None,
                         ignore_index=self.context.ignore_index,
                         reduction_override='none') for loss in losses_of(self.context))
                if losses.shape != labels.shape:
                    raise ArgumentError(
                        'OHEMPixelSampler without thresh needs losses of pixels, '
                        'which a loss_decode of the head does not give; set '
                        'thresh')
                weights = self._largest(losses, labels)
            else:
                weights = self._below_threshold(upsampled_cross_entropy(
                    seg_logit, labels,
                    ignore_index=self.context.ignore_index), labels)
        return weights.to(seg_logit)

    @torch.no_grad()
    def of_map(self, losses: Tensor, labels: Tensor,
               classes: int) -> Optional[Tensor]:
        """Weight of each pixel, from its cross entropy without class weights.

        Args:
            losses (Tensor): 0 where ignored, (B, H, W).
            labels (Tensor): class ids, (B, H, W).
            classes (int): number of classes.

        Returns:
            Tensor: (B, H, W), in the type of ``losses``.
        """
        if self.thresh is not None:
            return self._below_threshold(losses, labels)
        ignore = self.context.ignore_index
        return self._largest(sum(
            loss.loss_weight * weighed(loss, losses, labels, classes, ignore)
            for loss in losses_of(self.context)), labels)

    def covers(self) -> bool:
        """Whether :meth:`of_map` can stand for :meth:`sample`."""
        return self.thresh is not None or all(
            is_plain_cross_entropy(loss) for loss in losses_of(self.context))

    def _kept(self, labels: Tensor) -> int:
        return self.min_kept * labels.size(0)

    def _below_threshold(self, losses: Tensor, labels: Tensor) -> Tensor:
        """1 where the probability, exp(-loss), is below both thresholds."""
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
        """1 for the largest losses, a share for those tied at the last places."""
        valid = labels != self.context.ignore_index
        kept = min(self._kept(labels), losses.numel())
        smallest = kth_largest(losses.masked_fill(~valid, NEVER), kept)
        larger = (losses > smallest) & valid
        equal = (losses == smallest) & valid
        share = (kept - larger.sum()) / equal.sum().clamp(min=1)
        return torch.where(equal, share.to(losses), larger.to(losses))
