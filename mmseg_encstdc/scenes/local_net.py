"""A backbone without context, to measure what context is worth."""
from typing import Tuple

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, Sequential
from torch import Tensor

__all__ = ['LocalNet']


class LocalNet(BaseModule):
    """3x3 convolutions at full resolution.

    Its receptive field is 2 * depth + 1 pixels: 15 by default.

    Args:
        channels (int): of every convolution. Default: 32.
        depth (int): number of convolutions. Default: 7.
        norm_cfg (dict): Default: dict(type='BN').
    """

    def __init__(self,
                 channels: int = 32,
                 depth: int = 7,
                 norm_cfg: dict = dict(type='BN'),
                 init_cfg=None):
        super().__init__(init_cfg)
        self.layers = Sequential(*(ConvModule(
            channels if i else 3, channels, 3, padding=1, norm_cfg=norm_cfg)
                                   for i in range(depth)))

    def forward(self, x: Tensor) -> Tuple[Tensor]:
        """One map (B, channels, H, W) of an image (B, 3, H, W)."""
        return (self.layers(x), )
