"""Define a backbone with a small receptive field, to compare with."""
from typing import Optional, Tuple

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, Sequential
from torch import Tensor

__all__ = ['LocalNet']


class LocalNet(BaseModule):
    """Apply 3x3 convolutions at full resolution.

    The receptive field is 2 * depth + 1 pixels wide: 15 by default.

    Args:
        channels: channels of every convolution.
        depth: number of convolutions.
        norm_cfg: config of every norm.
        init_cfg: MMEngine's initialisation of the weights.
        in_channels: channels of the image.
    """

    def __init__(self, channels: int = 32, depth: int = 7,
                 norm_cfg: dict = dict(type='BN'), init_cfg: Optional[dict] = None,
                 in_channels: int = 3):
        super().__init__(init_cfg)
        self.layers = Sequential(*(
            ConvModule(channels if i else in_channels, channels, 3, padding=1,
                       norm_cfg=norm_cfg)
            for i in range(depth)))

    def forward(self, x: Tensor) -> Tuple[Tensor]:
        """Compute one map (B, channels, H, W) from images (B, in_channels, H, W)."""
        return (self.layers(x), )
