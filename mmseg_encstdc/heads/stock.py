"""MMSegmentation's heads under their own names: same numbers, less memory."""
from typing import List

import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead as StockFCNHead
from mmseg.models.decode_heads import STDCHead as StockSTDCHead
from mmseg.structures import SegDataSample
from torch import Tensor

from ..losses import detail_edges
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
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        samples = [
            SegDataSample(gt_sem_seg=PixelData(data=edges.unsqueeze(0)))
            for edges in self.edges(labels)]
        return decode_losses(self, seg_logits, samples)

    @torch.no_grad()
    def edges(self, labels: Tensor) -> Tensor:
        """1 on edges of label maps (B, H, W), else 0; int64, of their size."""
        scales = detail_edges(labels, self.boundary_threshold)
        fused = sum(weight * scale for weight, scale in
                    zip(self.fusion_kernel.flatten(), scales))
        return (fused > self.boundary_threshold).long()
