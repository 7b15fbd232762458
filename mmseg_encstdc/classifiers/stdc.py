"""The network that the authors of STDC-Seg pre-train on ImageNet."""
from typing import Dict, List, Optional, Union

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..errors import InputError

__all__ = ['STDCClassifier']


class STDCClassifier(BaseModel):
    """STDC backbone and classification head.

    Source: STDC-Seg, table 2 and section 3.1, and the authors' code: last
    1x1 conv -> square -> mean over pixels -> linear -> ReLU -> dropout ->
    linear, neither linear with bias. Their state dict also holds a batch norm
    after the first linear; their forward pass leaves it out, and so it is
    not here.

    Data samples are MMEngine's BaseDataElement. Training reads ``gt_label``
    (int64 scalar); prediction adds ``pred_score`` (num_classes, ), which sums
    to 1, and ``pred_label`` (int64 scalar).

    Args:
        backbone (dict): config of an STDCNet ``with_final_conv``, whose last
            map is that of stride 32.
        num_classes (int): number of classes.
        dropout_ratio (float): Default: 0.2.
        label_smooth (float): share of the target that is spread evenly over
            all classes, in [0, 1). Default: 0.
        data_preprocessor (dict, optional): such as ImgDataPreprocessor, which
            normalises and stacks. Default: None, images are taken as they are.
        init_cfg (dict): of the linear layers; the authors draw from
            N(0, 0.001). Default: dict(type='Normal', layer='Linear',
            std=0.001).

    Raises:
        InputError: for a backbone that does not end in its final conv at
            stride 32, or a ``label_smooth`` out of range.
    """

    def __init__(self,
                 backbone: dict,
                 num_classes: int,
                 dropout_ratio: float = 0.2,
                 label_smooth: float = 0.,
                 data_preprocessor: Optional[dict] = None,
                 init_cfg: Optional[dict] = dict(
                     type='Normal', layer='Linear', std=0.001)):
        super().__init__(data_preprocessor, init_cfg)
        if not 0 <= label_smooth < 1:
            raise InputError('model.label_smooth must be in [0, 1), got '
                             f'{label_smooth}')
        self.backbone = MODELS.build(backbone)
        if not (getattr(self.backbone, 'with_final_conv', False)
                and self.backbone.out_strides[-1] == 32):
            raise InputError('model.backbone of STDCClassifier must be an '
                             'STDCNet with with_final_conv=True whose last '
                             'out_strides is 32')
        width = self.backbone.final_conv.out_channels
        self.fc = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(dropout_ratio)
        self.linear = nn.Linear(width, num_classes, bias=False)
        self.label_smooth = label_smooth

    def forward(
        self,
        inputs: Tensor,
        data_samples: Optional[List[BaseDataElement]] = None,
        mode: str = 'tensor'
    ) -> Union[Tensor, Dict[str, Tensor], List[BaseDataElement]]:
        """One of MMEngine's three modes, for images (B, 3, H, W).

        Returns:
            Tensor | dict | list: 'tensor' gives logits (B, num_classes),
            'loss' what :meth:`loss` does, 'predict' what :meth:`predict` does.

        Raises:
            ValueError: for another mode.
        """
        if mode == 'tensor':
            return self.logits(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise ValueError("mode must be 'tensor', 'loss' or 'predict', got "
                         f'{mode!r}')

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, 3, H, W)."""
        x = self.backbone(inputs)[-1].pow(2)  # (B, C, H / 32, W / 32)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (B, C)
        x = self.dropout(self.fc(x).relu())  # (B, C)
        return self.linear(x)

    def loss(self, inputs: Tensor,
             data_samples: List[BaseDataElement]) -> Dict[str, Tensor]:
        """``loss_cls``, and for the log ``top1``, percent of the batch."""
        logits = self.logits(inputs)
        labels = torch.stack([sample.gt_label for sample in data_samples])
        hits = (logits.argmax(1) == labels).float()  # (B, )
        return dict(
            loss_cls=F.cross_entropy(
                logits, labels, label_smoothing=self.label_smooth),
            top1=100 * hits.mean())

    def predict(
        self,
        inputs: Tensor,
        data_samples: Optional[List[BaseDataElement]] = None
    ) -> List[BaseDataElement]:
        """The data samples, or new ones, with score and label of each image."""
        scores = self.logits(inputs).softmax(1)  # (B, num_classes)
        if data_samples is None:
            data_samples = [BaseDataElement() for _ in scores]
        for sample, score in zip(data_samples, scores):
            sample.pred_score = score
            sample.pred_label = score.argmax()
        return data_samples
