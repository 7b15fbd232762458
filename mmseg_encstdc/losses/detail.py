"""Compute the target and the loss of detail guidance from the edges of label maps."""
from functools import lru_cache
from typing import Optional, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import DecodeLoss
from .dice import binary_dice_loss

__all__ = ['DetailAggregateLoss', 'detail_edges', 'detail_target']

# Strides of the Laplacian; fusion weights are in this order.
STRIDES = (1, 2, 4)


def detail_target(labels: Tensor, fusion_weights: Sequence[float] = (0.6, 0.3, 0.1),
                  threshold: float = 0.1, ignore_index: Optional[int] = None,
                  permutation_invariant: bool = False) -> Tensor:
    """Fuse the edges of label maps at three strides into one binary map.

    Source: STDC-Seg (arXiv 2104.13188), section 3.3. The result is 1 where the
    weighted sum of :func:`detail_edges` exceeds ``threshold``. At the default weights
    an edge at stride 4 alone gives 0, because 0.1 > 0.1 is false.

    Args:
        labels, ignore_index, permutation_invariant: see :func:`detail_edges`.
        fusion_weights: weights of the edges at strides 1, 2 and 4, (3, ).
        threshold: threshold of the Laplacian and of the weighted sum.

    Returns:
        0 or 1, (B, H, W), uint8.
    """
    edges1, edges2, edges4 = detail_edges(
        labels, threshold, ignore_index, permutation_invariant)
    combination = edges1 + 2 * edges2 + 4 * edges4  # 0 to 7, (B, H, W)
    targets = _target_bits(tuple(fusion_weights), threshold)
    return torch.bitwise_right_shift(targets, combination).bitwise_and_(1)


@lru_cache(maxsize=64)
def _target_bits(weights: Tuple[float, ...], threshold: float) -> int:
    """Return an int whose bit n is the target of combination n of the three edges.

    Adds in float32 and in the order of the strides, as the authors do.
    """
    bits = 0
    for combination in range(8):
        total = np.float32(0)
        for i, weight in enumerate(weights):
            total += np.float32(weight) * np.float32(combination >> i & 1)
        bits |= int(total > np.float32(threshold)) << combination
    return bits


@torch.no_grad()
def detail_edges(
        labels: Tensor, threshold: float = 0.1, ignore_index: Optional[int] = None,
        permutation_invariant: bool = False) -> Tuple[Tensor, Tensor, Tensor]:
    """Find the edges of label maps at the strides 1, 2 and 4, at full size.

    An edge is a pixel at which the 3x3 Laplacian of the class ids exceeds
    ``threshold``. Strides 2 and 4 keep every second or fourth pixel, and nearest
    neighbour resizing restores the full size. The Laplacian is positive only on the
    side of the larger id. Ids outside of the image are 0, as in the authors' code, so
    pixels at the image border are edges unless their id is 0. The last two arguments
    go beyond the paper.

    Args:
        labels: class ids, (B, H, W), any integer type.
        threshold: threshold of the Laplacian.
        ignore_index: id of pixels that are never edges. These and the outside of the
            image are left out of the Laplacians of their neighbours. None treats
            every id as a class, as the authors do.
        permutation_invariant: take as edges the pixels whose id differs from that of
            one of their 8 neighbours inside the image. Both sides of a boundary are
            edges then, in any order of the ids.

    Returns:
        Three maps of 0 or 1, (B, H, W), uint8.
    """
    ids = labels.to(torch.int64 if permutation_invariant else torch.int32)
    valid = None
    if ignore_index is not None:
        valid = labels != ignore_index
        ids = ids.masked_fill(~valid, 0)
    edges = (_differ(ids, valid) if permutation_invariant else
             _laplacian(ids, valid) > threshold)
    if valid is not None:
        edges &= valid
    edges = edges.to(torch.uint8)
    maps = (edges, *(
        F.interpolate(edges[:, None, ::stride, ::stride], edges.shape[1:],
                      mode='nearest').squeeze(1) for stride in STRIDES[1:]))
    return maps if valid is None else tuple(each * valid for each in maps)


def _laplacian(ids: Tensor, valid: Optional[Tensor]) -> Tensor:
    """Sum ``id - neighbour's id`` over the 3x3 neighbourhoods of ids (B, H, W).

    Ids outside of the image are 0; neighbours that are not valid (B, H, W) are left
    out.
    """
    count = 9 if valid is None else _box_sum(valid.to(ids))
    return count * ids - _box_sum(ids)


def _differ(ids: Tensor, valid: Optional[Tensor]) -> Tensor:
    """Return where the valid ids of a 3x3 neighbourhood differ, (B, H, W).

    Their variance is positive there: n * sum(id^2) > sum(id)^2 for n ids.
    """
    ones = torch.ones_like(ids) if valid is None else valid.to(ids)
    return _box_sum(ones) * _box_sum(ids.square()) > _box_sum(ids).square()


def _box_sum(values: Tensor) -> Tensor:
    """Sum integers (B, H, W), 0 outside, over each 3x3 neighbourhood."""
    padded = F.pad(values, (1, 1, 1, 1))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]


class DetailAggregateLoss(DecodeLoss):
    """Add binary cross entropy and dice loss of detail logits.

    Source: STDC-Seg (arXiv 2104.13188), section 3.3, eq. 3. ``ignore_index``,
    ``permutation_invariant`` and ``learn_fusion`` go beyond the paper and are off by
    default.

    Args:
        fusion_weights: weights of the edges at strides 1, 2 and 4, (3, ).
        threshold: threshold of the Laplacian and of the weighted sum.
        smooth: see :func:`binary_dice_loss`.
        bce_weight: factor of the binary cross entropy.
        dice_weight: factor of the dice loss.
        ignore_index: id of pixels that are left out of both losses and of the edges;
            see :func:`detail_edges`.
        permutation_invariant: see :func:`detail_edges`.
        learn_fusion: train the fusion weights. The target is the sum of the three
            edge maps times ``softmax(fusion_logits)``, without a threshold; the
            threshold makes the gradient 0 in the authors' code. The softmax is
            initially ``fusion_weights`` divided by their sum. Training increases the
            weight of the stride that the network predicts best.
        loss_weight: factor of both losses.
        loss_name: key in the log.

    Raises:
        ValueError: unless there are three fusion weights, all positive with
            ``learn_fusion``.
    """

    def __init__(self, fusion_weights: Sequence[float] = (0.6, 0.3, 0.1),
                 threshold: float = 0.1, smooth: float = 1., bce_weight: float = 1.,
                 dice_weight: float = 1., ignore_index: Optional[int] = None,
                 permutation_invariant: bool = False, learn_fusion: bool = False,
                 loss_weight: float = 1.0, loss_name: str = 'loss_detail'):
        super().__init__(loss_weight, loss_name)
        if len(fusion_weights) != len(STRIDES):
            raise ValueError('fusion_weights must be three numbers, for strides '
                             f'{STRIDES}, got {fusion_weights}')
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
                raise ValueError('fusion_weights must be positive with learn_fusion, '
                                 f'got {fusion_weights}')
            self.fusion_logits = nn.Parameter(
                torch.tensor(self.fusion_weights, dtype=torch.float32).log())

    def components(self, logits: Tensor, labels: Tensor) -> Tuple[Tensor, Tensor]:
        """Compute the weighted cross entropy and dice loss of a batch, scalars.

        Args:
            logits: detail logits of any size, (B, 1, h, w).
            labels: class ids, (B, H, W).

        Raises:
            ValueError: when the logits do not have one channel.
        """
        if logits.dim() != 4 or logits.size(1) != 1:
            raise ValueError('DetailAggregateLoss takes logits (B, 1, h, w), '
                             f'got {tuple(logits.shape)}')
        target = self.target(labels)  # (B, H, W)
        logits = F.interpolate(
            logits.float(), labels.shape[1:], mode='bilinear',
            align_corners=True).squeeze(1)  # (B, H, W)
        if self.ignore_index is None:
            bce = F.binary_cross_entropy_with_logits(logits, target)
        else:
            ignored = labels == self.ignore_index
            bce = F.binary_cross_entropy_with_logits(
                logits, target, reduction='none').masked_fill(ignored, 0).sum()
            bce = bce / (labels.numel() - ignored.sum()).clamp(min=1)
            logits = logits.masked_fill(ignored, float('-inf'))
        dice = binary_dice_loss(logits, target, self.smooth)
        return (self.loss_weight * self.bce_weight * bce,
                self.loss_weight * self.dice_weight * dice)

    def target(self, labels: Tensor) -> Tensor:
        """Return the target for labels (B, H, W): 0 to 1, (B, H, W), float32."""
        options = self.threshold, self.ignore_index, self.permutation_invariant
        if self.fusion_logits is None:
            return detail_target(labels, self.fusion_weights, *options).float()
        edges = detail_edges(labels, *options)
        fusion_weights = self.fusion_logits.float().softmax(0)  # (3, )
        return sum(weight * each for weight, each in zip(fusion_weights, edges))

    def forward(self, pred: Tensor, label: Tensor, **kwargs) -> Tensor:
        """Return the sum of :meth:`components`, a scalar."""
        bce, dice = self.components(pred, label)
        return bce + dice
