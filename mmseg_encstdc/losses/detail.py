"""Detail guidance: edges of the label map as a training target."""
from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import DecodeLoss
from .dice import binary_dice_loss

__all__ = ['DetailAggregateLoss', 'detail_target']

# Strides of the Laplacian pyramid; the fusion weights follow this order.
STRIDES = (1, 2, 4)


@torch.no_grad()
def detail_target(labels: Tensor,
                  fusion_weights: Sequence[float] = (0.6, 0.3, 0.1),
                  threshold: float = 0.1) -> Tensor:
    """Edges of label maps at three scales, fused into one binary map.

    Source: STDC-Seg (arXiv 2104.13188), section 3.3. A 3x3 Laplacian at
    strides 1, 2 and 4, clamped at 0, enlarged by nearest neighbour and cut
    at ``threshold``; their weighted sum is cut at ``threshold`` again. The
    clamp keeps the side of an edge with the larger class id.

    Args:
        labels (Tensor): class ids with ignore as any other id, (B, H, W).
        fusion_weights (Sequence[float]): weights of the strides 1, 2 and 4.
            Default: (0.6, 0.3, 0.1), at which the stride-4 map alone never
            passes the cut: in float32, 0.1 > 0.1 is false.
        threshold (float): Default: 0.1.

    Returns:
        Tensor: 0 or 1, (B, H, W), float32.
    """
    maps = labels.unsqueeze(1).float()  # (B, 1, H, W)
    kernel = maps.new_full((1, 1, 3, 3), -1.)
    kernel[0, 0, 1, 1] = 8.
    fused = torch.zeros_like(maps)
    for stride, weight in zip(STRIDES, fusion_weights):
        with torch.autocast(maps.device.type, enabled=False):
            edges = F.conv2d(maps, kernel, stride=stride, padding=1)
        edges = (edges > threshold).to(maps)
        if stride > 1:
            edges = F.interpolate(edges, maps.shape[2:], mode='nearest')
        fused += weight * edges
    return (fused > threshold).squeeze(1).to(torch.float32)


class DetailAggregateLoss(DecodeLoss):
    """Binary cross entropy plus dice of detail logits.

    Source: STDC-Seg, section 3.3, eq. 3.

    Args:
        fusion_weights (Sequence[float]): weights of the Laplacians of
            stride 1, 2 and 4. Default: (0.6, 0.3, 0.1).
        threshold (float): cut of the edges. Default: 0.1.
        smooth (float): of the dice loss. Default: 1.
        bce_weight (float): Default: 1.
        dice_weight (float): Default: 1.
        loss_weight (float): factor of both. Default: 1.0.
        loss_name (str): Default: 'loss_detail'.

    Raises:
        ValueError: unless there are three fusion weights.
    """

    def __init__(self,
                 fusion_weights: Sequence[float] = (0.6, 0.3, 0.1),
                 threshold: float = 0.1,
                 smooth: float = 1.,
                 bce_weight: float = 1.,
                 dice_weight: float = 1.,
                 loss_weight: float = 1.0,
                 loss_name: str = 'loss_detail'):
        super().__init__(loss_weight, loss_name)
        if len(fusion_weights) != len(STRIDES):
            raise ValueError('fusion_weights must be three numbers, for the '
                             f'strides {STRIDES}, got {fusion_weights}')
        self.fusion_weights = tuple(fusion_weights)
        self.threshold = threshold
        self.smooth = smooth
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight

    def components(self, logits: Tensor,
                   labels: Tensor) -> Tuple[Tensor, Tensor]:
        """Weighted cross entropy and dice of a batch.

        Args:
            logits (Tensor): detail logits of any size, (B, 1, h, w).
            labels (Tensor): class ids, (B, H, W).

        Raises:
            ValueError: when the logits have more than one channel.
        """
        if logits.dim() != 4 or logits.size(1) != 1:
            raise ValueError('DetailAggregateLoss takes logits (B, 1, h, w), '
                             f'got {tuple(logits.shape)}')
        target = detail_target(labels, self.fusion_weights, self.threshold)
        logits = F.interpolate(
            logits.float(),
            labels.shape[1:],
            mode='bilinear',
            align_corners=True).squeeze(1)  # (B, H, W)
        bce = F.binary_cross_entropy_with_logits(logits, target)
        dice = binary_dice_loss(logits, target, self.smooth)
        return (self.loss_weight * self.bce_weight * bce,
                self.loss_weight * self.dice_weight * dice)

    def forward(self, pred: Tensor, label: Tensor, **kwargs) -> Tensor:
        """Sum of :meth:`components`, a scalar."""
        bce, dice = self.components(pred, label)
        return bce + dice
