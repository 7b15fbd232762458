"""Define EncNet's head."""
from typing import List, Tuple, Union

from mmseg.models.decode_heads import EncHead as StockEncHead
from torch import Tensor

from ..layers import ContextEncoding, build_dropout
from ..losses import presence_target
from .decode_losses import decode_losses

__all__ = ['EncHead']


class EncHead(StockEncHead):
    """Compute logits by context encoding, and the logits of each class's presence.

    Source: EncNet (arXiv 1803.08904), section 3. A config of MMSegmentation's EncHead
    gives the same network, state-dict keys and numbers, in less time and memory.
    Ignored pixels do not make a class present, even if their id is that of a class.

    Args:
        num_codes: K, number of codewords.
        use_se_loss: add the semantic encoding branch and its loss.
        add_lateral: fuse stages 2 and 3 of the backbone into the head.
        loss_se_decode: loss of the presence logits (B, num_classes) against the 0/1
            presence of each class.
        code_reduction: 'mean' (the authors' code) or 'sum' (the paper) of encodings.
        dropout_type: 'Dropout2d' drops channels (MMSegmentation), 'Dropout' elements
            (the authors).
        **kwargs: arguments of MMSegmentation's BaseDecodeHead.

    Raises:
        ValueError: for another ``code_reduction`` or ``dropout_type``, and for a
            ``loss_se_decode`` that cannot take one class.
    """

    def __init__(self, num_codes: int = 32, use_se_loss: bool = True,
                 add_lateral: bool = False,
                 loss_se_decode: dict = dict(
                     type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.2),
                 code_reduction: str = 'mean', dropout_type: str = 'Dropout2d',
                 **kwargs):
        if use_se_loss and kwargs.get('num_classes') == 1 and (
                loss_se_decode.get('type') == 'CrossEntropyLoss'):
            raise ValueError('with num_classes=1, loss_se_decode must be '
                             "dict(type='SemanticEncodingLoss')")
        super().__init__(num_codes=num_codes, use_se_loss=use_se_loss,
                         add_lateral=add_lateral, loss_se_decode=loss_se_decode,
                         **kwargs)
        self.enc_module = ContextEncoding(
            self.channels, num_codes, reduction=code_reduction, conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.dropout = build_dropout(dropout_type, self.dropout_ratio)

    def loss_by_feat(self, seg_logit: Union[Tensor, Tuple[Tensor, Tensor]],
                     batch_data_samples: List) -> dict:
        """Compute the losses of the logits and of the presence logits.

        Args:
            seg_logit: logits (B, num_classes, h, w); with ``use_se_loss`` a tuple of
                these and the presence logits (B, num_classes).
            batch_data_samples: SegDataSample, labels (1, H, W) each.

        Returns:
            The losses by name, ``acc_seg`` and, with ``use_se_loss``, ``loss_se``.
        """
        logits, presence = seg_logit if self.use_se_loss else (seg_logit, None)
        losses = decode_losses(self, logits, batch_data_samples)
        if self.use_se_loss:
            labels = self._stack_batch_gt(batch_data_samples)  # (B, 1, H, W)
            target = presence_target(labels, self.num_classes, self.ignore_index)
            losses['loss_se'] = self.loss_se_decode(presence, target)
        return losses
