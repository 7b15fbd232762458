"""Define the network that the authors of STDC-Seg pre-train on ImageNet."""
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
    """Classify images with an STDC backbone.

    Source: STDC-Seg (arXiv 2104.13188), section 3.1 and table 2, and the authors' code:
    last 1x1 conv -> square -> mean over pixels -> linear -> ReLU -> dropout -> linear,
    without biases. The authors' state dict also has a batch norm after the first linear
    layer, which their forward pass does not use; it is left out here.

    Data samples are MMEngine's BaseDataElement. Training reads ``gt_label`` (int64
    scalar). Prediction adds ``pred_score`` (num_classes, ), probabilities, and
    ``pred_label`` (int64 scalar).

    Args:
        backbone: config of an STDCNet ``with_final_conv`` whose last map has stride 32.
        num_classes: number of classes.
        dropout_ratio: probability of dropout.
        label_smooth: label smoothing of the cross entropy, in [0, 1).
        data_preprocessor: config such as ImgDataPreprocessor's, which normalises and
            stacks. None leaves the images as they are.
        init_cfg: initialisation of the linear layers; the authors draw from
            N(0, 0.001).

    Raises:
        InputError: for another backbone, or a ``label_smooth`` out of range.
    """

    def __init__(self, backbone: dict, num_classes: int, dropout_ratio: float = 0.2,
                 label_smooth: float = 0., data_preprocessor: Optional[dict] = None,
                 init_cfg: Optional[dict] = dict(
                     type='Normal', layer='Linear', std=0.001)):
        super().__init__(data_preprocessor, init_cfg)
        if not 0 <= label_smooth < 1:
            raise InputError(
                f'model.label_smooth must be in [0, 1), got {label_smooth}')
        self.backbone = MODELS.build(backbone)
        if not (getattr(self.backbone, 'with_final_conv', False)
                and self.backbone.out_strides[-1] == 32):
            raise InputError('model.backbone of STDCClassifier must be an STDCNet with '
                             'with_final_conv=True whose last out_strides is 32')
        channels = self.backbone.final_conv.out_channels
        self.fc = nn.Linear(channels, channels, bias=False)
        self.dropout = nn.Dropout(dropout_ratio)
        self.linear = nn.Linear(channels, num_classes, bias=False)
        self.label_smooth = label_smooth

    def forward(self, inputs: Tensor,
                data_samples: Optional[List[BaseDataElement]] = None,
                mode: str = 'tensor'
                ) -> Union[Tensor, Dict[str, Tensor], List[BaseDataElement]]:
        """Run one of MMEngine's modes on images (B, 3, H, W).

        Returns:
            Logits (B, num_classes) in the mode 'tensor', else the result of
            :meth:`loss` or :meth:`predict`.

        Raises:
            ValueError: for another mode.
        """
        if mode == 'tensor':
            return self.logits(inputs)
        if mode in ('loss', 'predict'):
            return getattr(self, mode)(inputs, data_samples)
        raise ValueError(f"mode must be 'tensor', 'loss' or 'predict', got {mode!r}")

    def logits(self, inputs: Tensor) -> Tensor:
        """Compute the logits (B, num_classes) of images (B, 3, H, W)."""
        x = self.backbone(inputs)[-1].pow(2)  # (B, C, H / 32, W / 32)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (B, C)
        x = self.dropout(self.fc(x).relu())  # (B, C)
        return self.linear(x)

    def loss(self, inputs: Tensor,
             data_samples: List[BaseDataElement]) -> Dict[str, Tensor]:
        """Compute ``loss_cls`` and, for the log, the accuracy ``top1`` in percent."""
        logits = self.logits(inputs)
        labels = torch.stack([sample.gt_label for sample in data_samples])
        hits = (logits.argmax(1) == labels).float()  # (B, )
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smooth)
        return dict(loss_cls=loss, top1=100 * hits.mean())

    def predict(self, inputs: Tensor,
                data_samples: Optional[List[BaseDataElement]] = None
                ) -> List[BaseDataElement]:
        """Add the prediction of each image to its data sample, new ones for None."""
        scores = self.logits(inputs).softmax(1)  # (B, num_classes)
        if data_samples is None:
            data_samples = [BaseDataElement() for _ in scores]
        for sample, score in zip(data_samples, scores):
            sample.pred_score = score
            sample.pred_label = score.argmax()
        return data_samples
