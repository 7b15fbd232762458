"""Compute the semantic encoding loss of the classes present in an image."""
from typing import Optional

import torch.nn.functional as F
from torch import Tensor

from .base import DecodeLoss

__all__ = ['SemanticEncodingLoss', 'presence_target']


def presence_target(labels: Tensor, num_classes: int,
                    ignore_index: Optional[int] = 255) -> Tensor:
    """Return 1 for each class that occurs in a label map, else 0.

    Source: EncNet (arXiv 1803.08904), section 3.2.

    Args:
        labels: class ids, (B, H, W) or (B, 1, H, W), integer. Ids outside
            [0, num_classes) are ignored.
        num_classes: C.
        ignore_index: id that is ignored as well.

    Returns:
        (B, C), in the type of ``labels``.
    """
    dtype, labels = labels.dtype, labels.flatten(1).long()  # (B, N)
    ignored = (labels < 0) | (labels >= num_classes)
    if ignore_index is not None:
        ignored = ignored | (labels == ignore_index)
    # Ignored pixels mark an additional class, which is removed at the end.
    presence = labels.new_zeros(labels.size(0), num_classes + 1, dtype=dtype)
    index = labels.masked_fill(ignored, num_classes)
    return presence.scatter_(1, index, 1)[:, :num_classes]


class SemanticEncodingLoss(DecodeLoss):
    """Average the binary cross entropy of the presence logits over the classes.

    Source: EncNet, section 3.2.

    Args:
        loss_weight: factor of the loss; the paper has 0.2.
        loss_name: key in the log.
    """

    def __init__(self, loss_weight: float = 0.2, loss_name: str = 'loss_se'):
        super().__init__(loss_weight, loss_name)

    def forward(self, pred: Tensor, target: Tensor, weight: Optional[Tensor] = None,
                ignore_index: int = 255, **kwargs) -> Tensor:
        """Compute the loss of a batch, a scalar.

        Args:
            pred: presence logits, (B, C), or (B, C, H, W), which are averaged over
                the pixels first, so that any decode head can take this loss.
            target: presence (B, C), or label maps (B, H, W) or (B, 1, H, W).
            weight: weight of each class, broadcast to (B, C). Weights of pixels,
                (B, H, W), are not used.
            ignore_index: id left out of a label map.

        Raises:
            ValueError: for logits of another rank.
        """
        if pred.dim() == 4:
            pred = pred.float().mean((2, 3))
            if weight is not None and weight.dim() > 2:  # of pixels
                weight = None
        if pred.dim() != 2:
            raise ValueError('SemanticEncodingLoss takes logits (B, C) or '
                             f'(B, C, H, W), got {tuple(pred.shape)}')
        if target.dim() > 2:
            target = presence_target(target, pred.size(1), ignore_index)
        return self.loss_weight * F.binary_cross_entropy_with_logits(
            pred, target.to(pred), weight)
