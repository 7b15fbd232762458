"""Compute a decode head's losses without logits at the size of the labels."""
from typing import List

import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from ..losses import PixelLosses
from ..losses.pixel_losses import (
    loss_modules,
    pixel_accuracy,
    pixel_reductions,
    sum_by_name,
)
from ..ops import upsampled_cross_entropy

__all__ = ['decode_losses']


def decode_losses(head: BaseDecodeHead, seg_logits: Tensor,
                  batch_data_samples: List) -> dict:
    """Compute the numbers of ``BaseDecodeHead.loss_by_feat`` with less memory.

    Does not resize the logits to the size of the labels, as MMSegmentation does, where
    :func:`pixel_reductions` can compute all losses of the head.

    Args:
        head: the head that computed the logits.
        seg_logits: logits of any size, (B, C, h, w).
        batch_data_samples: SegDataSample, labels (1, H, W) each.

    Returns:
        The losses by name, and ``acc_seg``, the pixel accuracy in percent.
    """
    if head.out_channels == 1:
        return _one_channel_losses(head, seg_logits, batch_data_samples)
    reductions = pixel_reductions(head)
    if reductions is None:
        return BaseDecodeHead.loss_by_feat(head, seg_logits, batch_data_samples)
    labels = head._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
    losses, hits = upsampled_cross_entropy(
        seg_logits, labels, head.align_corners, head.ignore_index, with_hits=True)
    pixels = PixelLosses(losses, labels, seg_logits.size(1), head.ignore_index, hits)
    weight = None
    if head.sampler is not None:
        weight = head.sampler.pixel_weights(pixels._replace(losses=losses.detach()))
    result = sum_by_name((reduction.loss_name, reduction.reduce_pixels(pixels, weight))
                         for reduction in reductions)
    result['acc_seg'] = pixel_accuracy(hits, labels, head.ignore_index)
    return result


def _one_channel_losses(head: BaseDecodeHead, seg_logits: Tensor,
                        batch_data_samples: List) -> dict:
    """Compute MMSegmentation's losses of (B, 1, h, w), and the accuracy by threshold.

    MMSegmentation's accuracy of one channel is the fraction of background pixels, and
    its cross entropy fails where all pixels are ignored.
    """
    labels = head._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
    ignored = -1 if head.ignore_index is None else head.ignore_index
    valid = labels != ignored
    logits = F.interpolate(seg_logits.detach(), labels.shape[1:], mode='bilinear',
                           align_corners=head.align_corners).squeeze(1)  # (B, H, W)
    if valid.any():
        losses = BaseDecodeHead.loss_by_feat(head, seg_logits, batch_data_samples)
    else:
        losses = sum_by_name((loss.loss_name, 0 * seg_logits.sum())
                             for loss in loss_modules(head))
    hits = ((logits.sigmoid() > head.threshold) == (labels == 1)) & valid
    losses['acc_seg'] = pixel_accuracy(hits, labels, ignored)
    return losses
