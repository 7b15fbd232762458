"""The segmentation head of STDC-Seg, and of EncNet's auxiliary branch."""
from torch import nn

from ..layers import build_dropout
from .stock import FCNHead

__all__ = ['SegHead']


class SegHead(FCNHead):
    """Conv 3x3 + norm + ReLU -> conv 1x1, the authors' way.

    Source: STDC-Seg (arXiv 2104.13188), section 3.2: no bias in the last
    convolution and no dropout. ``bias=True, dropout_ratio=0.1`` makes it the
    auxiliary head of EncNet. State-dict keys are FCNHead's.

    Args:
        in_channels (int): channels of the feature map.
        channels (int): channels between the two convolutions.
        num_classes (int): number of classes.
        bias (bool): bias of the last convolution. Default: False.
        dropout_ratio (float): Default: 0.
        dropout_type (str): 'Dropout' (elements, as the authors) or
            'Dropout2d' (channels). Default: 'Dropout'.
        num_convs (int): Default: 1.
        concat_input (bool): Default: False.
        **kwargs: arguments of MMSegmentation's FCNHead and BaseDecodeHead.
    """

    def __init__(self,
                 in_channels: int,
                 channels: int,
                 bias: bool = False,
                 dropout_ratio: float = 0.,
                 dropout_type: str = 'Dropout',
                 num_convs: int = 1,
                 concat_input: bool = False,
                 **kwargs):
        super().__init__(
            in_channels=in_channels,
            channels=channels,
            num_convs=num_convs,
            concat_input=concat_input,
            dropout_ratio=dropout_ratio,
            **kwargs)
        self.conv_seg = nn.Conv2d(channels, self.out_channels, 1, bias=bias)
        self.dropout = build_dropout(dropout_type, dropout_ratio)
