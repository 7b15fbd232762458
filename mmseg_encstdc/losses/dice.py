"""Dice loss of a binary map."""
from typing import Optional

from torch import Tensor

from .base import DecodeLoss

__all__ = ['BinaryDiceLoss', 'binary_dice_loss']


def binary_dice_loss(logits: Tensor, target: Tensor,
                     smooth: float = 1.) -> Tensor:
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), batch mean.

    Source: STDC-Seg (arXiv 2104.13188), eq. 4; sums run over each sample.

    Args:
        logits (Tensor): (B, ...); p is their sigmoid.
        target (Tensor): 0 or 1, as many values a sample as ``logits``.
        smooth (float): Default: 1.

    Returns:
        Tensor: a scalar.
    """
    probability = logits.sigmoid().flatten(1)
    target = target.flatten(1).to(probability)
    overlap = 2 * (probability * target).sum(1) + smooth
    return (1 - overlap /
            (probability.sum(1) + target.sum(1) + smooth)).mean()


class BinaryDiceLoss(DecodeLoss):
    """Dice loss of one-channel logits, linear in the probabilities.

    Not MMSegmentation's DiceLoss, which squares its denominator and, with
    one class, takes the background as target.

    Args:
        smooth (float): Default: 1.
        loss_weight (float): Default: 1.0.
        loss_name (str): Default: 'loss_bdice'.

    Raises:
        ValueError: when ``smooth`` is not positive.
    """

    def __init__(self,
                 smooth: float = 1.,
                 loss_weight: float = 1.0,
                 loss_name: str = 'loss_bdice'):
        super().__init__(loss_weight, loss_name)
        if smooth <= 0:
            raise ValueError(f'smooth must be positive, got {smooth}')
        self.smooth = smooth

    def forward(self,
                pred: Tensor,
                label: Tensor,
                weight: Optional[Tensor] = None,
                ignore_index: int = 255,
                **kwargs) -> Tensor:
        """Loss of logits (B, 1, H, W) against labels (B, H, W) in {0, 1}.

        Ignored pixels, and pixels of ``weight`` (B, H, W) 0, count in none
        of the sums.

        Raises:
            ValueError: when ``pred`` has more than one channel.
        """
        if pred.dim() != 4 or pred.size(1) != 1:
            raise ValueError('BinaryDiceLoss takes logits (B, 1, H, W), got '
                             f'{tuple(pred.shape)}')
        keep = label != ignore_index
        if weight is not None:
            keep = keep & (weight > 0)
        logits = pred.squeeze(1).float().masked_fill(~keep, float('-inf'))
        return self.loss_weight * binary_dice_loss(
            logits, (label == 1) & keep, self.smooth)
