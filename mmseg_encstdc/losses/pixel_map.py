"""Losses of pixels, before they become one number.

``map_loss`` says whether a ``loss_decode`` can be computed from the map of cross
entropies alone. Where it can, a head needs no logits at the size of the labels:
``upsampled_cross_entropy`` gives the map.
"""
from typing import Callable, List, Optional

import torch
from mmseg.models.losses import CrossEntropyLoss
from torch import Tensor, nn

from .. import compat
from ..ops.upsampled_cross_entropy import pixel_weights

__all__ = [
    'is_plain_cross_entropy', 'losses_of', 'map_loss', 'pixel_accuracy', 'weighed'
]

EPS = torch.finfo(torch.float32).eps
# (losses (B, H, W), labels (B, H, W), number of classes, ignore_index, weight of
# each pixel (B, H, W) or None) -> scalar
MapLoss = Callable[[Tensor, Tensor, int, int, Optional[Tensor]], Tensor]


def map_loss(loss: nn.Module) -> Optional[MapLoss]:
    """What reduces a map of cross entropies as ``loss`` does its own.

    Args:
        loss (nn.Module): a ``loss_decode``: MMSegmentation's CrossEntropyLoss
            (softmax, 'mean' or 'sum'), or a loss with a method ``of_map``, such
            as OhemCELoss.

    Returns:
        Callable, optional: takes the losses of pixels without class weights, 0
        where ignored, (B, H, W); the labels (B, H, W); the number of classes;
        ignore_index; and a weight of each pixel, (B, H, W) or None. None for any
        other loss.
    """
    if hasattr(loss, 'of_map'):
        return loss.of_map
    if not is_plain_cross_entropy(loss) or loss.reduction == 'none':
        return None

    def reduce(losses: Tensor, labels: Tensor, classes: int, ignore_index: int,
               weight: Optional[Tensor] = None) -> Tensor:
        return _mmseg_cross_entropy(
            loss, losses, labels, classes, ignore_index, weight)

    return reduce


def losses_of(head: nn.Module) -> List[nn.Module]:
    """The losses of a decode head, which keeps a single one without a list."""
    losses = head.loss_decode
    return list(losses) if isinstance(losses, nn.ModuleList) else [losses]


def is_plain_cross_entropy(loss: nn.Module) -> bool:
    """Whether it is MMSegmentation's own CrossEntropyLoss, over a softmax."""
    return type(loss) is CrossEntropyLoss and not (
        loss.use_sigmoid or loss.use_mask)


def weighed(loss: CrossEntropyLoss, losses: Tensor, labels: Tensor, classes: int,
            ignore_index: int) -> Tensor:
    """The map of cross entropies (B, H, W) times the loss's class weights."""
    if loss.class_weight is None:
        return losses
    return losses * pixel_weights(
        loss.class_weight, labels, ignore_index, classes, losses)


def _mmseg_cross_entropy(loss: CrossEntropyLoss, losses: Tensor, labels: Tensor,
                         classes: int, ignore_index: int,
                         weight: Optional[Tensor]) -> Tensor:
    """MMSegmentation's numbers; what it divides by stays on the device."""
    count = labels.numel()
    if loss.class_weight is not None:
        weights = pixel_weights(
            loss.class_weight, labels, ignore_index, classes, losses)
        losses, count = losses * weights, weights.sum()
        if (not loss.avg_non_ignore and -classes <= ignore_index < classes
                and compat.counts_ignored_class()):
            count = count + (labels == ignore_index).sum() * float(
                loss.class_weight[ignore_index])
    elif loss.avg_non_ignore:
        count = (labels != ignore_index).sum()
    if weight is not None:
        losses = losses * weight
    total = losses.sum()
    if loss.reduction == 'mean':
        total = total / (count + EPS)
    return loss.loss_weight * total


def pixel_accuracy(hits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Percentage of the pixels that are not ignored which are hits.

    Args:
        hits (Tensor): bool, (B, H, W), False where ignored.
        labels (Tensor): class ids, (B, H, W).
        ignore_index (int): id of pixels that count nowhere.

    Returns:
        Tensor: (1, ), in [0, 100], as MMSegmentation logs it; 100 where all
        pixels are ignored.
    """
    counted = (labels.long() != ignore_index).sum() + EPS
    return ((hits.sum() + EPS) * (100. / counted)).unsqueeze(0)
