"""Compute the dice loss of a binary map."""
from typing import Optional

from torch import Tensor

from .base import DecodeLoss

__all__ = ['BinaryDiceLoss', 'binary_dice_loss']


def binary_dice_loss(logits: Tensor, target: Tensor, smooth: float = 1.) -> Tensor:
    """Compute 1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth).

    Source: STDC-Seg (arXiv 2104.13188), eq. 4. The sums are those of one sample.

    Args:
        logits: (B, ...); p is their sigmoid.
        target: t, 0 to 1, (B, ...), as many values per sample as ``logits``.
        smooth: keeps the quotient finite.

    Returns:
        The mean over the batch, a scalar.
    """
    probability = logits.sigmoid().flatten(1)
    target = target.flatten(1).to(probability)
    overlap = 2 * (probability * target).sum(1) + smooth  # (B, )
    return (1 - overlap / (probability.sum(1) + target.sum(1) + smooth)).mean()


class BinaryDiceLoss(DecodeLoss):
    """Compute the dice loss of one-channel logits, linear in the probabilities.

    MMSegmentation's DiceLoss squares the terms of its denominator and, with one
    class, takes the background as target.

    Args:
        smooth: see :func:`binary_dice_loss`.
        loss_weight: factor of the loss.
        loss_name: key in the log.

    Raises:
        ValueError: when ``smooth`` is not positive.
    """

    def __init__(self, smooth: float = 1., loss_weight: float = 1.0,
                 loss_name: str = 'loss_bdice'):
        super().__init__(loss_weight, loss_name)
        if smooth <= 0:
            raise ValueError(f'smooth must be positive, got {smooth}')
        self.smooth = smooth

    def forward(self, pred: Tensor, label: Tensor, weight: Optional[Tensor] = None,
                ignore_index: int = 255, **kwargs) -> Tensor:
        """Compute the loss of a batch, a scalar.

        Ignored pixels, and pixels of weight 0, are left out of all sums.

        Args:
            pred: logits, (B, 1, H, W).
            label: 0 or 1, (B, H, W).
            weight: 0 or more for each pixel, (B, H, W).
            ignore_index: id of the ignored pixels.

        Raises:
            ValueError: when ``pred`` has more than one channel.
        """
        if pred.dim() != 4 or pred.size(1) != 1:
            raise ValueError(
                f'BinaryDiceLoss takes logits (B, 1, H, W), got {tuple(pred.shape)}')
        keep = label != ignore_index
        if weight is not None:
            keep = keep & (weight > 0)
        logits = pred.squeeze(1).float().masked_fill(~keep, float('-inf'))
        return self.loss_weight * binary_dice_loss(
            logits, (label == 1) & keep, self.smooth)
