"""Detail guidance: a head that learns edges, and exists in training only."""
from typing import List

from torch import Tensor

from .seg_head import SegHead

__all__ = ['DetailHead']


class DetailHead(SegHead):
    """Conv 3x3 + norm + ReLU -> conv 1x1 to one detail logit.

    Source: STDC-Seg (arXiv 2104.13188), section 3.3. It sits on a backbone
    map of stride 2, 4 or 8 as an auxiliary head; evaluation never runs it.

    Args:
        in_channels (int): channels of the feature map.
        channels (int): channels between the convolutions. Default: 64.
        loss_decode (dict): a loss with ``components(logits, labels)``.
            Default: dict(type='DetailAggregateLoss').
        **kwargs: arguments of :class:`SegHead`.
    """

    def __init__(self,
                 in_channels: int,
                 channels: int = 64,
                 loss_decode: dict = dict(type='DetailAggregateLoss'),
                 **kwargs):
        if kwargs.pop('num_classes', 1) != 1:
            raise ValueError(
                'DetailHead predicts 1 channel; leave num_classes out')
        super().__init__(
            in_channels,
            channels,
            num_classes=1,
            threshold=0.5,  # unused; spares a warning of the parent
            loss_decode=loss_decode,
            **kwargs)
        if not hasattr(self.loss_decode, 'components'):
            raise ValueError('DetailHead.loss_decode must be one loss with a '
                             'components method, such as DetailAggregateLoss')

    def loss_by_feat(self, seg_logits: Tensor,
                     batch_data_samples: List) -> dict:
        """Cross entropy and dice against the detail of the label maps.

        Args:
            seg_logits (Tensor): detail logits at the head's own stride,
                (B, 1, h, w).
            batch_data_samples (list[SegDataSample]): labels (1, H, W) each.

        Returns:
            dict: ``loss_detail_bce`` and ``loss_detail_dice``.
        """
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        bce, dice = self.loss_decode.components(seg_logits, labels)
        return dict(loss_detail_bce=bce, loss_detail_dice=dice)
