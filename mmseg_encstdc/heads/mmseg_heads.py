"""Replace MMSegmentation's FCNHead and STDCHead: same numbers, less memory."""
from typing import List

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead as StockFCNHead
from mmseg.models.decode_heads import STDCHead as StockSTDCHead
from mmseg.models.losses import CrossEntropyLoss, DiceLoss
from mmseg.structures import SegDataSample
from torch import Tensor

from ..losses import detail_edges
from ..losses.pixel_losses import loss_modules, pixel_accuracy, sum_by_name
from .decode_losses import decode_losses

__all__ = ['FCNHead', 'STDCHead']


class FCNHead(StockFCNHead):
    """Compute the losses of MMSegmentation's FCNHead without full-size logits."""

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: List) -> dict:
        """Compute the losses of logits (B, C, h, w); see :func:`decode_losses`."""
        return decode_losses(self, seg_logits, batch_data_samples)


class STDCHead(StockSTDCHead):
    """Classify each pixel as an edge of the label map or not, in two channels.

    Has the arguments, state-dict keys and numbers of MMSegmentation's STDCHead.
    :class:`DetailHead` is the head of the paper, with one channel. ``fusion_kernel`` is
    loaded from a checkpoint and used; ``laplacian_kernel`` is constant and only kept
    for the checkpoint's keys.
    """

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: List) -> dict:
        """Compute the losses of logits (B, 2, h, w) against :meth:`edges`."""
        # MMSegmentation marks every pixel where the threshold is below 0, and none
        # where it is 1 or more.
        if not 0 <= self.boundary_threshold < 1:
            return super().loss_by_feat(seg_logits, batch_data_samples)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
        edges = self.edges(labels)  # (B, H, W)
        if self._takes_one_hot_labels():
            return self._one_hot_losses(seg_logits, edges)
        samples = [SegDataSample(gt_sem_seg=PixelData(data=edge.unsqueeze(0)))
                   for edge in edges]
        return decode_losses(self, seg_logits, samples)

    def _takes_one_hot_labels(self) -> bool:
        """Return whether each loss accepts one-hot labels (B, 2, H, W).

        MMSegmentation's losses would make these from class ids, which is slower and
        lets the host wait for a GPU.
        """
        # The losses would ignore the zeros or the ones.
        if self.ignore_index in (0, 1, None):
            return False
        return self.out_channels == 2 and self.sampler is None and all(
            type(loss) is DiceLoss or
            type(loss) is CrossEntropyLoss and loss.use_sigmoid
            for loss in loss_modules(self))

    def _one_hot_losses(self, seg_logits: Tensor, edges: Tensor) -> dict:
        """Compute losses and accuracy of logits (B, 2, h, w), edges (B, H, W)."""
        logits = F.interpolate(
            seg_logits, edges.shape[1:], mode='bilinear',
            align_corners=self.align_corners)  # (B, 2, H, W)
        one_hot = torch.stack([1 - edges, edges], 1).float()  # (B, 2, H, W)
        result = sum_by_name(
            (loss.loss_name, loss(logits, one_hot, ignore_index=self.ignore_index))
            for loss in loss_modules(self))
        hits = torch.where(edges.bool(), logits[:, 1] >= logits[:, 0],
                           logits[:, 0] >= logits[:, 1])  # (B, H, W)
        result['acc_seg'] = pixel_accuracy(hits, edges, self.ignore_index)
        return result

    @torch.no_grad()
    def edges(self, labels: Tensor) -> Tensor:
        """Return 1 at the edges of label maps (B, H, W), else 0; int64, (B, H, W)."""
        maps = detail_edges(labels, self.boundary_threshold)
        fused = sum(weight * edges for weight, edges in
                    zip(self.fusion_kernel.flatten(), maps))
        return (fused > self.boundary_threshold).long()
