"""Compute a head's losses from the cross entropy of each pixel.

A head needs no logits at the size of the labels if all its losses and its sampler can
be computed from :class:`PixelLosses`; :func:`pixel_reductions` tests this.
"""
from abc import ABC, abstractmethod
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import torch
from mmseg.models.losses import CrossEntropyLoss
from torch import Tensor, nn

from .. import compat
from ..ops.upsampled_cross_entropy import pixel_weights

__all__ = [
    'CrossEntropyReduction', 'PixelLosses', 'PixelReduction', 'PixelWeighting',
    'loss_modules', 'pixel_accuracy', 'pixel_reductions', 'sum_by_name',
    'two_channels'
]

EPS = torch.finfo(torch.float32).eps


class PixelLosses(NamedTuple):
    """Hold the cross entropy of each pixel of a batch.

    Attributes:
        losses: cross entropy without class weights, 0 where ignored, (B, H, W).
        labels: class ids, (B, H, W).
        num_classes: channels of the logits.
        ignore_index: id of the ignored pixels.
        hits: whether the label's logit is the largest, bool, (B, H, W); None where
            not computed.
    """
    losses: Tensor
    labels: Tensor
    num_classes: int
    ignore_index: int
    hits: Optional[Tensor] = None

    def class_weights(self, class_weight: Sequence[float]) -> Tensor:
        """Return the weight of each pixel's class, 0 where ignored, (B, H, W)."""
        return pixel_weights(class_weight, self.labels, self.ignore_index,
                             self.num_classes, self.losses)

    def weighted(self, class_weight: Optional[Sequence[float]]) -> Tensor:
        """Return the losses times the class weights, if any, (B, H, W)."""
        if class_weight is None:
            return self.losses
        return self.losses * self.class_weights(class_weight)


class PixelReduction(ABC):
    """Mark a ``loss_decode`` that can be computed from :class:`PixelLosses`."""
    loss_name: str

    @abstractmethod
    def reduce_pixels(self, pixels: PixelLosses,
                      weight: Optional[Tensor] = None) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            pixels: maps of (B, H, W).
            weight: the sampler's weight of each pixel, (B, H, W).
        """


class PixelWeighting(ABC):
    """Mark a ``sampler`` that can be computed from :class:`PixelLosses`."""

    def takes_pixels(self) -> bool:
        """Return whether the settings allow :meth:`pixel_weights`."""
        return True

    @abstractmethod
    def pixel_weights(self, pixels: PixelLosses) -> Tensor:
        """Return the weight of each pixel in the losses, (B, H, W)."""


class CrossEntropyReduction(PixelReduction):
    """Compute MMSegmentation's CrossEntropyLoss from :class:`PixelLosses`.

    Args:
        loss: a loss over a softmax, with the reduction 'mean' or 'sum'.
    """

    def __init__(self, loss: CrossEntropyLoss):
        self.loss = loss
        self.loss_name = loss.loss_name

    def reduce_pixels(self, pixels: PixelLosses,
                      weight: Optional[Tensor] = None) -> Tensor:
        """Return MMSegmentation's loss, a scalar; the host does not wait for a GPU."""
        loss, (losses, labels, classes, ignored, _) = self.loss, pixels
        count = labels.numel()
        if loss.class_weight is not None:
            class_weights = pixels.class_weights(loss.class_weight)
            losses, count = losses * class_weights, class_weights.sum()
            if (not loss.avg_non_ignore and -classes <= ignored < classes
                    and compat.counts_ignored_class()):
                ignored_weight = float(loss.class_weight[ignored])
                count = count + (labels == ignored).sum() * ignored_weight
        elif loss.avg_non_ignore:
            count = (labels != ignored).sum()
        if weight is not None:
            losses = losses * weight
        divisor = count + EPS if loss.reduction == 'mean' else 1
        return loss.loss_weight * (losses.sum() / divisor)


def two_channels(logits: Tensor) -> Tensor:
    """Return logits of two classes whose softmax is the sigmoid of one channel.

    Args:
        logits: (B, C, H, W).

    Returns:
        (B, 2, H, W) for C = 1, 0 being the logit of the background; else ``logits``.
    """
    if logits.size(1) > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], 1)


def loss_modules(head: nn.Module) -> List[nn.Module]:
    """Return the losses of a decode head as a list, also where it has one."""
    losses = head.loss_decode
    return list(losses) if isinstance(losses, nn.ModuleList) else [losses]


def pixel_reduction(loss: nn.Module) -> Optional[PixelReduction]:
    """Return the reduction of a ``loss_decode``; None where it needs logits."""
    if isinstance(loss, PixelReduction):
        return loss
    # A subclass may compute another loss.
    if type(loss) is CrossEntropyLoss and loss.reduction != 'none' and not (
            loss.use_sigmoid or loss.use_mask):
        return CrossEntropyReduction(loss)
    return None


def pixel_reductions(head: nn.Module) -> Optional[List[PixelReduction]]:
    """Return the reductions of a decode head's losses, in their order.

    Returns:
        None where a loss or the sampler needs logits at the size of the labels, and
        for a head of a single channel, which has no softmax.
    """
    if head.out_channels == 1:
        return None
    sampler = head.sampler
    if sampler is not None and not (
            isinstance(sampler, PixelWeighting) and sampler.takes_pixels()):
        return None
    reductions = [pixel_reduction(loss) for loss in loss_modules(head)]
    return None if None in reductions else reductions


def sum_by_name(losses: Iterable[Tuple[str, Tensor]]) -> Dict[str, Tensor]:
    """Add up the losses, scalars, that have the same name."""
    sums = {}
    for name, loss in losses:
        sums[name] = sums[name] + loss if name in sums else loss
    return sums


def pixel_accuracy(hits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return the percentage (1, ) of pixels that are classified correctly.

    It is the number that MMSegmentation logs: 100 where all pixels are ignored.

    Args:
        hits: whether a pixel is correct, bool, (B, H, W); False where ignored.
        labels: class ids, (B, H, W).
        ignore_index: id of the ignored pixels.
    """
    counted = (labels.long() != ignore_index).sum() + EPS
    return ((hits.sum() + EPS) * (100. / counted)).unsqueeze(0)
