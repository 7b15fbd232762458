"""Compute a decode head's losses without logits at the size of the labels."""
from typing import List

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from ..losses import PixelLosses
from ..losses.pixel_losses import pixel_accuracy, pixel_reductions, sum_by_name
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
