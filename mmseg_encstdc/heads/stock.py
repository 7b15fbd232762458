"""MMSegmentation's heads under their own names: same numbers, less memory."""
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
from ..losses.pixel_map import losses_of, pixel_accuracy
from .upsampled import decode_losses

__all__ = ['FCNHead', 'STDCHead']


class FCNHead(StockFCNHead):
    """MMSegmentation's FCNHead, with losses that hold no full-size logits."""

    def loss_by_feat(self, seg_logits: Tensor,
                     batch_data_samples: List) -> dict:
        """See :func:`decode_losses`."""
        return decode_losses(self, seg_logits, batch_data_samples)


class STDCHead(StockSTDCHead):
    """MMSegmentation's detail head, which tells edges from the rest.

    Same arguments, state-dict keys and numbers; the target comes from integers
    and bytes. (:class:`DetailHead` is the head of the paper, with one channel.)
    ``fusion_kernel`` is read from a checkpoint and used; ``laplacian_kernel`` is
    kept for checkpoints, and taken to be what it is in all of them.
    """

    def loss_by_feat(self, seg_logits: Tensor,
                     batch_data_samples: List) -> dict:
        """Losses against the edges of the label maps, see :meth:`edges`."""
        if not 0 <= self.boundary_threshold < 1:  # cuts of 0 and 1 differ there
            return super().loss_by_feat(seg_logits, batch_data_samples)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        edges = self.edges(labels)
        if self._takes_shares():
            return self._losses_of_shares(seg_logits, edges)
        samples = [
            SegDataSample(gt_sem_seg=PixelData(data=edge.unsqueeze(0)))
            for edge in edges]
        return decode_losses(self, seg_logits, samples)

    def _takes_shares(self) -> bool:
        """Whether each loss can be given the share of either class at a pixel.

        Those losses make it from class ids otherwise, slowly, and wait for a GPU.
        """
        if self.ignore_index in (0, 1, None):  # one of the shares, not a class
            return False
        return self.out_channels == 2 and self.sampler is None and all(
            type(loss) is DiceLoss or
            type(loss) is CrossEntropyLoss and loss.use_sigmoid
            for loss in losses_of(self))

    def _losses_of_shares(self, seg_logits: Tensor, edges: Tensor) -> dict:
        """The losses and accuracy of logits (B, 2, h, w) and edges (B, H, W)."""
        logits = F.interpolate(
            seg_logits, edges.shape[1:], mode='bilinear',
            align_corners=self.align_corners)
        shares = torch.stack([1 - edges, edges], 1).float()  # (B, 2, H, W)
        result = {}
        for loss in losses_of(self):
            value = loss(logits, shares, ignore_index=self.ignore_index)
            name = loss.loss_name
            result[name] = result[name] + value if name in result else value
        hits = torch.where(edges.bool(), logits[:, 1] >= logits[:, 0],
                           logits[:, 0] >= logits[:, 1])
        result['acc_seg'] = pixel_accuracy(hits, edges, self.ignore_index)
        return result

    @torch.no_grad()
    def edges(self, labels: Tensor) -> Tensor:
        """1 on edges of label maps (B, H, W), else 0; int64, of their size."""
        scales = detail_edges(labels, self.boundary_threshold)
        fused = sum(weight * scale for weight, scale in
                    zip(self.fusion_kernel.flatten(), scales))
        return (fused > self.boundary_threshold).long()
