"""Detail guidance: edges of the label map as a training target."""
from functools import lru_cache
from typing import Optional, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import DecodeLoss
from .dice import binary_dice_loss

__all__ = ['DetailAggregateLoss', 'detail_edges', 'detail_target']

# Strides of the Laplacian pyramid; the fusion weights follow this order.
STRIDES = (1, 2, 4)


def detail_target(labels: Tensor,
                  fusion_weights: Sequence[float] = (0.6, 0.3, 0.1),
                  threshold: float = 0.1,
                  ignore_index: Optional[int] = None,
                  permutation_invariant: bool = False) -> Tensor:
    """Edges of label maps at three scales, fused into one binary map.

    Source: STDC-Seg (arXiv 2104.13188), section 3.3: the weighted sum of
    :func:`detail_edges`, cut at ``threshold``.

    Args:
        labels (Tensor): class ids with ignore as any other id, (B, H, W).
        fusion_weights (Sequence[float]): weights of the strides 1, 2 and 4.
            Default: (0.6, 0.3, 0.1), at which the stride-4 map alone never
            passes the cut: in float32, 0.1 > 0.1 is false.
        threshold (float): Default: 0.1.
        ignore_index, permutation_invariant: see :func:`detail_edges`.

    Returns:
        Tensor: 0 or 1, (B, H, W), uint8.
    """
    fine, middle, coarse = detail_edges(
        labels, threshold, ignore_index, permutation_invariant)
    combination = fine + 2 * middle + 4 * coarse  # 0 to 7
    passing = _passing(tuple(fusion_weights), threshold)
    return torch.bitwise_right_shift(passing, combination).bitwise_and_(1)


@lru_cache(maxsize=64)
def _passing(weights: Tuple[float, ...], threshold: float) -> int:
    """Which combinations of the three edges pass the cut: bit n for number n.

    In float32 and in the order of the strides, as the authors add them.
    """
    passing = 0
    for combination in range(8):
        total = np.float32(0)
        for scale, weight in enumerate(weights):
            total += np.float32(weight) * np.float32(combination >> scale & 1)
        passing |= int(total > np.float32(threshold)) << combination
    return passing


@torch.no_grad()
def detail_edges(
        labels: Tensor,
        threshold: float = 0.1,
        ignore_index: Optional[int] = None,
        permutation_invariant: bool = False) -> Tuple[Tensor, Tensor, Tensor]:
    """Edges of label maps at the strides 1, 2 and 4, at full size.

    A 3x3 Laplacian above ``threshold``; a larger stride keeps every second or
    fourth pixel, enlarged again by nearest neighbour. What is above 0 lies on the
    side of an edge with the larger class id, and the image border, beside which
    the authors see zeros, is an edge of every class but id 0. The two options
    go beyond the paper.

    Args:
        labels (Tensor): class ids, (B, H, W), any integer type.
        threshold (float): of the Laplacian of class ids. Default: 0.1.
        ignore_index (int, optional): id of pixels that make no edge and are
            none; nor does the image border make one then. Default: None, which
            takes every id as a class, as the authors do.
        permutation_invariant (bool): an edge is where a pixel or one of its 8
            neighbours inside the image has another id, on both sides of the
            edge, whatever the ids. Default: False.

    Returns:
        tuple[Tensor]: three maps of 0 or 1, (B, H, W), uint8.
    """
    ids = labels.to(torch.int64 if permutation_invariant else torch.int32)
    valid = None
    if ignore_index is not None:
        valid = labels != ignore_index
        ids = ids.masked_fill(~valid, 0)
    if permutation_invariant:
        edges = _differ(ids, valid)
    else:
        edges = _laplacian(ids, valid) > threshold
    if valid is not None:
        edges &= valid
    edges = edges.to(torch.uint8)
    scales = (edges, *(
        F.interpolate(edges[:, None, ::stride, ::stride], edges.shape[1:],
                      mode='nearest').squeeze(1) for stride in STRIDES[1:]))
    if valid is None:
        return scales
    return tuple(scale * valid for scale in scales)


def _laplacian(ids: Tensor, valid: Optional[Tensor]) -> Tensor:
    """Sum over the 3x3 neighbourhood of what a pixel's id exceeds theirs by.

    Outside of the image ids are 0; with ``valid`` (B, H, W) neighbours count
    where that is true.
    """
    count = 9 if valid is None else _box_sum(valid.to(ids))
    return count * ids - _box_sum(ids)


def _differ(ids: Tensor, valid: Optional[Tensor]) -> Tensor:
    """Whether the ids of the 3x3 neighbourhood have any variance."""
    ones = torch.ones_like(ids) if valid is None else valid.to(ids)
    return _box_sum(ones) * _box_sum(ids.square()) > _box_sum(ids).square()


def _box_sum(values: Tensor) -> Tensor:
    """Sum of each 3x3 neighbourhood of integers (B, H, W), 0 outside."""
    padded = F.pad(values, (1, 1, 1, 1))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]


class DetailAggregateLoss(DecodeLoss):
    """Binary cross entropy plus dice of detail logits.

    Source: STDC-Seg, section 3.3, eq. 3. ``ignore_index``,
    ``permutation_invariant`` and ``learn_fusion`` go beyond the paper and are off
    by default.

    Args:
        fusion_weights (Sequence[float]): weights of the Laplacians of
            stride 1, 2 and 4. Default: (0.6, 0.3, 0.1).
        threshold (float): cut of the edges. Default: 0.1.
        smooth (float): of the dice loss. Default: 1.
        bce_weight (float): Default: 1.
        dice_weight (float): Default: 1.
        ignore_index (int, optional): id of pixels that are left out of both
            losses and around which there is no edge; the image border is none
            either. Default: None, the authors' rule.
        permutation_invariant (bool): edges that do not depend on the order of
            the class ids; see :func:`detail_edges`. Default: False.
        learn_fusion (bool): train the fusion weights. The authors' are
            parameters too, but the cut of the fused map leaves them a gradient
            of zeros. Here the target is not cut: it is the sum of the three maps
            under ``softmax(fusion_logits)``, which starts at the shares of
            ``fusion_weights``. The weights move towards the scale that the
            network predicts best. Default: False.
        loss_weight (float): factor of both. Default: 1.0.
        loss_name (str): Default: 'loss_detail'.

    Raises:
        ValueError: unless there are three fusion weights, all positive with
            ``learn_fusion``.
    """

    def __init__(self,
                 fusion_weights: Sequence[float] = (0.6, 0.3, 0.1),
                 threshold: float = 0.1,
                 smooth: float = 1.,
                 bce_weight: float = 1.,
                 dice_weight: float = 1.,
                 ignore_index: Optional[int] = None,
                 permutation_invariant: bool = False,
                 learn_fusion: bool = False,
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
        self.ignore_index = ignore_index
        self.permutation_invariant = permutation_invariant
        self.fusion_logits = None
        if learn_fusion:
            if min(fusion_weights) <= 0:
                raise ValueError('fusion_weights must be positive where they are '
                                 f'learned, got {fusion_weights}')
            self.fusion_logits = nn.Parameter(
                torch.tensor(self.fusion_weights, dtype=torch.float32).log())

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
        target = self.target(labels)  # (B, H, W)
        logits = F.interpolate(
            logits.float(),
            labels.shape[1:],
            mode='bilinear',
            align_corners=True).squeeze(1)  # (B, H, W)
        if self.ignore_index is None:
            bce = F.binary_cross_entropy_with_logits(logits, target)
        else:
            ignored = labels == self.ignore_index
            count = (labels.numel() - ignored.sum()).clamp(min=1)
            bce = F.binary_cross_entropy_with_logits(
                logits, target, reduction='none').masked_fill(ignored, 0)
            bce = bce.sum() / count
            logits = logits.masked_fill(ignored, float('-inf'))
        dice = binary_dice_loss(logits, target, self.smooth)
        return (self.loss_weight * self.bce_weight * bce,
                self.loss_weight * self.dice_weight * dice)

    def target(self, labels: Tensor) -> Tensor:
        """What the sigmoid of the logits should be, (B, H, W), float32."""
        if self.fusion_logits is None:
            return detail_target(
                labels, self.fusion_weights, self.threshold, self.ignore_index,
                self.permutation_invariant).float()
        edges = detail_edges(labels, self.threshold, self.ignore_index,
                             self.permutation_invariant)
        shares = self.fusion_logits.float().softmax(0)
        return sum(share * scale for share, scale in zip(shares, edges))

    def forward(self, pred: Tensor, label: Tensor, **kwargs) -> Tensor:
        """Sum of :meth:`components`, a scalar."""
        bce, dice = self.components(pred, label)
        return bce + dice
