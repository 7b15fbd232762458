"""Cross entropy over hard pixels (online hard example mining)."""
import math
from typing import Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import kth_largest
from ..ops.upsampled_cross_entropy import pixel_weights
from .base import DecodeLoss

__all__ = ['OhemCELoss', 'ohem_mean']


def ohem_mean(losses: Tensor, threshold: float, min_kept: int) -> Tensor:
    """Mean of the losses above ``threshold``, or of the largest ones.

    Sorted downwards: if the loss number ``min_kept`` (0-based) exceeds the
    threshold, all that exceed it count, else the ``min_kept`` largest. Nothing
    is sorted: a selection finds the smallest loss to keep, and on a CPU not even
    that where the count of hard pixels decides. On a GPU nothing waits for the
    device. Losses equal to the smallest one kept share what is left for them.

    Args:
        losses (Tensor): loss of each pixel, any shape; ignored pixels are 0.
        threshold (float): loss above which a pixel is hard.
        min_kept (int): fewest pixels to keep; clamped to [1, pixels].

    Returns:
        Tensor: a scalar.
    """
    if losses.numel() == 0:
        return losses.sum()
    min_kept = min(max(min_kept, 1), losses.numel())
    weights, kept = _selection(losses.detach(), threshold, min_kept)
    return (weights * losses).sum() / kept


@torch.no_grad()
def _selection(losses: Tensor, threshold: float,
               min_kept: int) -> Tuple[Tensor, Tensor]:
    """Weight of each loss in the sum, and what to divide the sum by."""
    hard = losses > threshold
    count = hard.sum()
    looks = losses.device.type == 'cpu' and not torch.compiler.is_compiling()
    if looks and count > min_kept:
        return hard, count
    smallest = kth_largest(losses, min_kept)
    larger, equal = losses > smallest, losses == smallest
    share = (min_kept - larger.sum()) / equal.sum()
    largest = torch.where(equal, share.to(losses), larger.to(losses))
    decided = count > min_kept
    return (torch.where(decided, hard.to(losses), largest),
            torch.where(decided, count, min_kept))


class OhemCELoss(DecodeLoss):
    """Cross entropy that averages over the hard pixels of the batch.

    Source: STDC-Seg (arXiv 2104.13188), the authors' training code. A pixel
    is hard where the probability of its class is below ``thresh``.

    Args:
        thresh (float): probability in (0, 1). Default: 0.7.
        min_kept (int | float): fewest pixels to average over: a count for
            the whole batch of one process (int), or a fraction of its
            pixels (float in (0, 1]). Default: 1/16, as the authors.
        class_weight (Sequence[float], optional): weight of each class.
        loss_weight (float): Default: 1.0.
        loss_name (str): Default: 'loss_ohem'.

    Raises:
        ValueError: for a ``thresh`` or ``min_kept`` out of range.
    """

    def __init__(self,
                 thresh: float = 0.7,
                 min_kept: Union[int, float] = 1 / 16,
                 class_weight: Optional[Sequence[float]] = None,
                 loss_weight: float = 1.0,
                 loss_name: str = 'loss_ohem'):
        super().__init__(loss_weight, loss_name)
        if not 0 < thresh < 1:
            raise ValueError(f'thresh must be in (0, 1), got {thresh}')
        is_count = isinstance(min_kept, int)
        if not (min_kept > 0 and (is_count or min_kept <= 1)):
            raise ValueError('min_kept must be a positive count (int) or a '
                             f'fraction in (0, 1] (float), got {min_kept!r}')
        self.thresh = thresh
        self.min_kept = min_kept
        self.class_weight = class_weight

    def forward(self,
                pred: Tensor,
                label: Tensor,
                weight: Optional[Tensor] = None,
                ignore_index: int = 255,
                **kwargs) -> Tensor:
        """Loss of a batch.

        Args:
            pred (Tensor): logits, (B, C, H, W).
            label (Tensor): class ids, (B, H, W), int64.
            weight (Tensor, optional): weight of each pixel, (B, H, W).
            ignore_index (int): id that counts as loss 0. Default: 255.

        Returns:
            Tensor: a scalar.
        """
        losses = F.cross_entropy(
            pred.to(torch.promote_types(pred.dtype, torch.float32)), label,
            ignore_index=ignore_index, reduction='none')  # (B, H, W)
        return self.of_map(losses, label, pred.size(1), ignore_index, weight)

    def of_map(self,
               losses: Tensor,
               labels: Tensor,
               classes: int,
               ignore_index: int = 255,
               weight: Optional[Tensor] = None) -> Tensor:
        """Loss of a map of cross entropies without class weights.

        Args:
            losses (Tensor): cross entropy of each pixel, 0 where ignored,
                (B, H, W).
            labels (Tensor): class ids, (B, H, W).
            classes (int): number of classes.
            ignore_index (int): id that counts as loss 0. Default: 255.
            weight (Tensor, optional): weight of each pixel, (B, H, W).

        Returns:
            Tensor: a scalar.
        """
        if self.class_weight is not None:
            losses = losses * pixel_weights(
                self.class_weight, labels, ignore_index, classes, losses)
        if weight is not None:
            losses = losses * weight
        return self.loss_weight * ohem_mean(
            losses, -math.log(self.thresh), self.count(losses.numel()))

    def count(self, pixels: int) -> int:
        """Fewest pixels to keep out of ``pixels``."""
        if isinstance(self.min_kept, int):
            return self.min_kept
        return int(self.min_kept * pixels)
