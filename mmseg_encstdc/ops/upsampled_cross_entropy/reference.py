"""Compute the upsampled cross entropy in standard operators."""
from typing import Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import check_arguments, check_labels, class_weights

__all__ = ['upsampled_cross_entropy_reference']


def upsampled_cross_entropy_reference(
        logits: Tensor,
        labels: Tensor,
        align_corners: bool = False,
        ignore_index: int = 255,
        class_weight: Union[Tensor, Sequence[float], None] = None,
        with_hits: bool = False) -> Union[Tensor, Tuple[Tensor, Tensor]]:
    """Compute :func:`upsampled_cross_entropy` from enlarged logits in memory.

    Arguments and results are the same. It supports gradients of gradients and
    forward-mode differentiation.
    """
    check_arguments(logits, labels, ignore_index)
    if labels.device.type == 'cpu' and labels.numel():
        check_labels(labels, logits.size(1), ignore_index)
    wide = torch.promote_types(logits.dtype, torch.float32)
    enlarged = F.interpolate(  # (B, C, H, W)
        logits.to(wide), labels.shape[1:], mode='bilinear',
        align_corners=align_corners)
    labels = labels.long()
    weights = None if class_weight is None else class_weights(
        class_weight, logits.size(1), enlarged)
    losses = F.cross_entropy(
        enlarged, labels, weights, ignore_index=ignore_index, reduction='none')
    if not with_hits:
        return losses
    ignored = labels == ignore_index
    picked = enlarged.gather(
        1, labels.masked_fill(ignored, 0).unsqueeze(1)).squeeze(1)
    return losses, (picked >= enlarged.amax(1)) & ~ignored
