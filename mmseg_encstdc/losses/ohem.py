"""Average the cross entropy over hard pixels (online hard example mining)."""
import math
from typing import Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import kth_largest
from .base import DecodeLoss
from .pixel_losses import PixelLosses, PixelReduction, two_channels

__all__ = ['OhemCELoss', 'largest_weights', 'ohem_mean']


def ohem_mean(losses: Tensor, threshold: float, min_kept: int) -> Tensor:
    """Average the losses above ``threshold``, or the largest ones.

    If more than ``min_kept`` losses exceed the threshold, those are averaged, else the
    ``min_kept`` largest, found without a sort. Losses equal to the smallest of these
    have equal weights. A CPU skips the selection where the threshold decides. A GPU
    always runs it, so that the host does not wait for the device.

    Args:
        losses: loss of each pixel, any shape; ignored pixels are 0.
        threshold: loss above which a pixel is hard.
        min_kept: fewest pixels to keep; clamped to [1, pixels].

    Returns:
        A scalar.
    """
    if losses.numel() == 0:
        return losses.sum()
    min_kept = min(max(min_kept, 1), losses.numel())
    weights, divisor = _ohem_weights(losses.detach(), threshold, min_kept)
    return (weights * losses).sum() / divisor


@torch.no_grad()
def _ohem_weights(losses: Tensor, threshold: float,
                  min_kept: int) -> Tuple[Tensor, Tensor]:
    """Return the weights, in the shape of ``losses``, and their sum, a scalar."""
    hard = losses > threshold
    count = hard.sum()
    enough = count > min_kept
    can_branch = losses.device.type == 'cpu' and not torch.compiler.is_compiling()
    if can_branch and enough:
        return hard, count
    largest = largest_weights(losses, min_kept)
    return (torch.where(enough, hard.to(losses), largest),
            torch.where(enough, count, min_kept))


def largest_weights(losses: Tensor, kept: int) -> Tensor:
    """Return 1 for the ``kept`` largest losses and 0 for the others.

    Losses equal to the smallest of the largest have equal weights of at most 1. All
    weights add up to ``kept``.

    Args:
        losses: any shape, which is that of the weights.
        kept: 1 to the number of losses.
    """
    smallest = kth_largest(losses, kept)
    larger, equal = losses > smallest, losses == smallest
    tied_weight = (kept - larger.sum()) / equal.sum()
    return torch.where(equal, tied_weight.to(losses), larger.to(losses))


class OhemCELoss(DecodeLoss, PixelReduction):
    """Average the cross entropy over the hard pixels of the batch.

    Source: the training code of STDC-Seg (arXiv 2104.13188). A pixel is hard where
    the probability of its class is below ``thresh``. See :func:`ohem_mean`. One channel
    is the logit of class 1 against class 0, as in a sigmoid.

    Args:
        thresh: probability in (0, 1).
        min_kept: fewest pixels to average over: a count for the batch of one
            process (int), or a fraction of its pixels (float in (0, 1]). The authors
            have 1/16.
        class_weight: weight of each class, (C, ).
        loss_weight: factor of the loss.
        loss_name: key in the log.

    Raises:
        ValueError: for a ``thresh`` or ``min_kept`` out of range.
    """

    def __init__(self, thresh: float = 0.7, min_kept: Union[int, float] = 1 / 16,
                 class_weight: Optional[Sequence[float]] = None,
                 loss_weight: float = 1.0, loss_name: str = 'loss_ohem'):
        super().__init__(loss_weight, loss_name)
        if not 0 < thresh < 1:
            raise ValueError(f'thresh must be in (0, 1), got {thresh}')
        if not (min_kept > 0 and (isinstance(min_kept, int) or min_kept <= 1)):
            raise ValueError('min_kept must be a positive count (int) or a '
                             f'fraction in (0, 1] (float), got {min_kept!r}')
        self.thresh = thresh
        self.min_kept = min_kept
        self.class_weight = class_weight

    def forward(self, pred: Tensor, label: Tensor, weight: Optional[Tensor] = None,
                ignore_index: int = 255, **kwargs) -> Tensor:
        """Compute the loss of a batch, a scalar.

        Args:
            pred: logits, (B, C, H, W).
            label: class ids, (B, H, W), int64; 0 or 1 where C is 1.
            weight: weight of each pixel, (B, H, W).
            ignore_index: id of pixels whose loss is 0.
        """
        pred = two_channels(pred)
        losses = F.cross_entropy(
            pred.to(torch.promote_types(pred.dtype, torch.float32)), label,
            ignore_index=ignore_index, reduction='none')  # (B, H, W)
        return self.reduce_pixels(
            PixelLosses(losses, label, pred.size(1), ignore_index), weight)

    def reduce_pixels(self, pixels: PixelLosses,
                      weight: Optional[Tensor] = None) -> Tensor:
        """Compute the loss of a batch; see :class:`PixelReduction`."""
        losses, min_kept = pixels.weighted(self.class_weight), self.min_kept
        if weight is not None:
            losses = losses * weight
        if not isinstance(min_kept, int):
            min_kept = int(min_kept * losses.numel())
        return self.loss_weight * ohem_mean(losses, -math.log(self.thresh), min_kept)
