"""A decode head's losses without logits at the size of the labels."""
from typing import List, Optional, Tuple

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from ..losses.pixel_map import MapLoss, losses_of, map_loss, pixel_accuracy
from ..ops import upsampled_cross_entropy

__all__ = ['decode_losses']


def decode_losses(head: BaseDecodeHead, seg_logits: Tensor,
                  batch_data_samples: List) -> dict:
    """``BaseDecodeHead.loss_by_feat``: the same numbers, a fraction of the memory.

    Where every ``loss_decode`` of the head comes from the cross entropy of
    pixels (plain, or over hard pixels), that is computed from the head's own
    logits. A head with any other loss or sampler, or a single channel, takes
    MMSegmentation's way, which enlarges the logits first.

    Args:
        head (BaseDecodeHead): whose losses they are.
        seg_logits (Tensor): logits of any size, (B, C, h, w).
        batch_data_samples (list[SegDataSample]): labels (1, H, W) each.

    Returns:
        dict: the losses by name, and ``acc_seg``, the pixel accuracy in percent.
    """
    reductions = _reductions(head)
    if reductions is None:
        return BaseDecodeHead.loss_by_feat(head, seg_logits, batch_data_samples)
    labels = head._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
    losses, hits = upsampled_cross_entropy(
        seg_logits, labels, head.align_corners, head.ignore_index,
        with_hits=True)
    weight = None
    if head.sampler is not None:
        weight = head.sampler.of_map(losses.detach(), labels, seg_logits.size(1))
    result = {}
    for name, reduce in reductions:
        value = reduce(losses, labels, seg_logits.size(1), head.ignore_index,
                       weight)
        result[name] = result[name] + value if name in result else value
    result['acc_seg'] = pixel_accuracy(hits, labels, head.ignore_index)
    return result


def _reductions(head: BaseDecodeHead) -> Optional[List[Tuple[str, MapLoss]]]:
    """Names and reductions of the head's losses; None if one has none."""
    pairs = [(loss.loss_name, map_loss(loss)) for loss in losses_of(head)]
    covered = all(reduce is not None for _, reduce in pairs)
    sampler = head.sampler
    if not (sampler is None or hasattr(sampler, 'of_map') and sampler.covers()):
        return None
    if head.out_channels == 1 or not covered:
        return None
    return pairs
