"""Train detail guidance on the edges of the label map."""
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
    """Fuse the edges of label maps at three strides into one binary map.

    Source: STDC-Seg (arXiv 2104.13188), section 3.3. The result is 1 where the
    weighted sum of :func:`detail_edges` exceeds ``threshold``.

    Args:
        labels: class ids, (B, H, W), any integer type.
        fusion_weights: weights of the strides 1, 2 and 4, (3, ). At the defaults an
            edge of stride 4 alone is not in the result: 0.1 > 0.1 is false.
        threshold: of the Laplacian, and of the weighted sum.
        ignore_index: see :func:`detail_edges`.
        permutation_invariant: see :func:`detail_edges`.

    Returns:
        0 or 1, (B, H, W), uint8.
    """
    fine, middle, coarse = detail_edges(
        labels, threshold, ignore_index, permutation_invariant)
    combination = fine + 2 * middle + 4 * coarse  # 0 to 7
    passing = _passing(tuple(fusion_weights), threshold)
    return torch.bitwise_right_shift(passing, combination).bitwise_and_(1)


@lru_cache(maxsize=64)
def _passing(weights: Tuple[float, ...], threshold: float) -> int:
    """Return the combinations of the three edges above the threshold, as bits.

    Bit n is for combination n. Adds in float32 and in the order of the strides, as
    the authors do.
    """
    passing = 0
    for combination in range(8):
        total = np.float32(0)
        for bit, weight in enumerate(weights):
            total += np.float32(weight) * np.float32(combination >> bit & 1)
        passing |= int(total > np.float32(threshold)) << combination
    return passing


@torch.no_grad()
def detail_edges(
        labels: Tensor,
        threshold: float = 0.1,
        ignore_index: Optional[int] = None,
        permutation_invariant: bool = False) -> Tuple[Tensor, Tensor, Tensor]:
    """Find the edges of label maps at the strides 1, 2 and 4, at full size.

    An edge is a pixel at which the 3x3 Laplacian of the class ids exceeds
    ``threshold``. The strides 2 and 4 keep every second or fourth pixel and enlarge
    the map again by nearest neighbour. The Laplacian is positive on the side of the
    larger class id only. It takes the ids outside of the image as 0, as the authors
    do, so pixels at the image border are edges unless their id is 0. The two options
    go beyond the paper.

    Args:
        labels: class ids, (B, H, W), any integer type.
        threshold: of the Laplacian of class ids.
        ignore_index: id of pixels that are no edge and make none; the image border
            makes no edge either. None takes every id as a class, as the authors do.
        permutation_invariant: mark a pixel as an edge where its id differs from that
            of one of its 8 neighbours inside the image. This marks both sides of an
            edge and does not depend on the order of the ids.

    Returns:
        Three maps of 0 or 1, (B, H, W), uint8.
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
    maps = (edges, *(
        F.interpolate(edges[:, None, ::stride, ::stride], edges.shape[1:],
                      mode='nearest').squeeze(1) for stride in STRIDES[1:]))
    if valid is None:
        return maps
    return tuple(each * valid for each in maps)


def _laplacian(ids: Tensor, valid: Optional[Tensor]) -> Tensor:
    """Sum id - neighbour's id over the 3x3 neighbourhoods of ids (B, H, W).

    Ids outside of the image are 0. Neighbours outside of ``valid`` (B, H, W) are left
    out of the sum.
    """
    count = 9 if valid is None else _box_sum(valid.to(ids))
    return count * ids - _box_sum(ids)


def _differ(ids: Tensor, valid: Optional[Tensor]) -> Tensor:
    """Return whether ids (B, H, W) differ within their 3x3 neighbourhood.

    Neighbours outside of ``valid`` (B, H, W) are left out. A variance above 0,
    n sum(id^2) > sum(id)^2, needs no division.
    """
    ones = torch.ones_like(ids) if valid is None else valid.to(ids)
    return _box_sum(ones) * _box_sum(ids.square()) > _box_sum(ids).square()


def _box_sum(values: Tensor) -> Tensor:
    """Sum each 3x3 neighbourhood of integers (B, H, W), 0 outside."""
    padded = F.pad(values, (1, 1, 1, 1))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]


class DetailAggregateLoss(DecodeLoss):
    """Add binary cross entropy and dice loss of detail logits.

    Source: STDC-Seg, section 3.3, eq. 3. ``ignore_index``,
    ``permutation_invariant`` and ``learn_fusion`` go beyond the paper and are off
    by default.

    Args:
        fusion_weights: weights of the edges of stride 1, 2 and 4, (3, ).
        threshold: of the edges, and of their weighted sum.
        smooth: of the dice loss.
        bce_weight: factor of the binary cross entropy.
        dice_weight: factor of the dice loss.
        ignore_index: id of pixels that are left out of both losses; neither they nor
            the image border make an edge. None is the authors' rule.
        permutation_invariant: take edges that do not depend on the order of the
            class ids; see :func:`detail_edges`.
        learn_fusion: train the fusion weights. The authors' are parameters too, but
            the threshold of the fused map makes their gradient 0. The target has no
            threshold here: it is the sum of the three maps times
            ``softmax(fusion_logits)``, which starts at ``fusion_weights`` divided by
            their sum. Training increases the weight of the stride that the network
            predicts best.
        loss_weight: factor of both losses.
        loss_name: key in the log.

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
        """Compute the weighted cross entropy and dice loss of a batch, scalars.

        Args:
            logits: detail logits of any size, (B, 1, h, w).
            labels: class ids, (B, H, W).

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
        """Return the target of the logits' sigmoid, (B, H, W), float32.

        Args:
            labels: class ids, (B, H, W).
        """
        if self.fusion_logits is None:
            return detail_target(
                labels, self.fusion_weights, self.threshold, self.ignore_index,
                self.permutation_invariant).float()
        edges = detail_edges(labels, self.threshold, self.ignore_index,
                             self.permutation_invariant)
        fusion_weights = self.fusion_logits.float().softmax(0)  # (3, )
        return sum(weight * each for weight, each in zip(fusion_weights, edges))

    def forward(self, pred: Tensor, label: Tensor, **kwargs) -> Tensor:
        """Add :meth:`components` of logits (B, 1, h, w), labels (B, H, W)."""
        bce, dice = self.components(pred, label)
        return bce + dice
