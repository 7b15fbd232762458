"""Define the segmentation head of STDC-Seg and of EncNet's auxiliary branch."""
from torch import nn

from ..layers import build_dropout
from .mmseg_heads import FCNHead

__all__ = ['SegHead']


class SegHead(FCNHead):
    """Compute logits as the authors do: conv 3x3 + norm + ReLU -> conv 1x1.

    Source: STDC-Seg (arXiv 2104.13188), section 3.2; the last convolution has no bias,
    and there is no dropout. ``bias=True, dropout_ratio=0.1`` gives the auxiliary head
    of EncNet. State-dict keys are FCNHead's.

    Args:
        in_channels: channels of the feature map.
        channels: channels between the convolutions.
        bias: give the last convolution a bias.
        dropout_ratio: probability of dropout before the last convolution.
        dropout_type: 'Dropout' (elements, as the authors) or 'Dropout2d' (channels).
        num_convs: number of 3x3 convolutions.
        concat_input: concatenate the input to the output of the 3x3 convolutions.
        **kwargs: arguments of MMSegmentation's FCNHead, such as ``num_classes``.

    Raises:
        ValueError: for another ``dropout_type``.
    """

    def __init__(self, in_channels: int, channels: int, bias: bool = False,
                 dropout_ratio: float = 0., dropout_type: str = 'Dropout',
                 num_convs: int = 1, concat_input: bool = False, **kwargs):
        super().__init__(
            in_channels=in_channels, channels=channels, num_convs=num_convs,
            concat_input=concat_input, dropout_ratio=dropout_ratio, **kwargs)
        self.conv_seg = nn.Conv2d(channels, self.out_channels, 1, bias=bias)
        self.dropout = build_dropout(dropout_type, dropout_ratio)
