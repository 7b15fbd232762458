"""Define the head of STDC-Seg's detail guidance."""
from typing import List

from torch import Tensor

from .seg_head import SegHead

__all__ = ['DetailHead']


class DetailHead(SegHead):
    """Compute one detail logit: conv 3x3 + norm + ReLU -> conv 1x1.

    Source: STDC-Seg (arXiv 2104.13188), section 3.3. It is an auxiliary head on a
    backbone map of stride 2, 4 or 8 and only runs in training.

    Args:
        in_channels: channels of the feature map.
        channels: channels between the convolutions.
        loss_decode: a loss with ``components(logits, labels)``.
        **kwargs: arguments of :class:`SegHead`.

    Raises:
        ValueError: for ``num_classes`` other than 1, and for a loss without
            ``components``.
    """

    def __init__(self, in_channels: int, channels: int = 64,
                 loss_decode: dict = dict(type='DetailAggregateLoss'), **kwargs):
        if kwargs.pop('num_classes', 1) != 1:
            raise ValueError('DetailHead predicts 1 channel; leave num_classes out')
        # The threshold is unused; the parent warns without one.
        super().__init__(in_channels, channels, num_classes=1, threshold=0.5,
                         loss_decode=loss_decode, **kwargs)
        if not hasattr(self.loss_decode, 'components'):
            raise ValueError('DetailHead.loss_decode must be one loss with a '
                             'components method, such as DetailAggregateLoss')

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: List) -> dict:
        """Compute cross entropy and dice loss against the edges of the label maps.

        Args:
            seg_logits: detail logits at the head's own stride, (B, 1, h, w).
            batch_data_samples: SegDataSample, labels (1, H, W) each.

        Returns:
            ``loss_detail_bce`` and ``loss_detail_dice``.
        """
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
        bce, dice = self.loss_decode.components(seg_logits, labels)
        return dict(loss_detail_bce=bce, loss_detail_dice=dice)
