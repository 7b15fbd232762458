"""Define the backbone and the context path of STDC-Seg (arXiv 2104.13188).

They have the arguments, state-dict keys and numbers of MMSegmentation's classes of the
same names. ``out_strides`` and ``detail_strides`` are new, and ``norm_cfg`` reaches
every norm.
"""
from typing import Optional, Sequence, Tuple

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.dist import get_world_size
from mmengine.model import BaseModule, ModuleList
from mmseg.models.backbones.bisenetv1 import AttentionRefinementModule
from mmseg.models.backbones.stdc import FeatureFusionModule
from mmseg.models.backbones.stdc import STDCNet as StockSTDCNet
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..errors import ArgumentError, InputError

__all__ = ['STDCContextPathNet', 'STDCNet']

STAGE_STRIDES = (2, 4, 8, 16, 32)


class STDCNet(StockSTDCNet):
    """Compute feature maps with STDCNet813 or STDCNet1446.

    Source: STDC-Seg, section 3.1 and table 2.

    Args:
        stdc_type: 'STDCNet1' (813 MFLOPs) or 'STDCNet2' (1446 MFLOPs).
        in_channels: channels of the image.
        channels: output channels C_i of the five stages.
        bottleneck_type: 'cat' or 'add'.
        norm_cfg: config of every norm.
        act_cfg: config of every activation.
        num_convs: convolutions in a block.
        with_final_conv: append a 1x1 convolution to max(1024, C_5) channels.
        pretrained: deprecated in favour of ``init_cfg``.
        init_cfg: MMEngine's initialisation of the weights.
        out_strides: strides of the maps to return, in their order, out of 2, 4, 8, 16
            and 32.

    Raises:
        ValueError: for another ``stdc_type``, ``bottleneck_type``, number of
            ``channels`` or ``out_strides``.
    """

    def __init__(self, stdc_type: str, in_channels: int = 3,
                 channels: Sequence[int] = (32, 64, 256, 512, 1024),
                 bottleneck_type: str = 'cat', norm_cfg: dict = dict(type='BN'),
                 act_cfg: dict = dict(type='ReLU'), num_convs: int = 4,
                 with_final_conv: bool = False, pretrained: Optional[str] = None,
                 init_cfg: Optional[dict] = None,
                 out_strides: Sequence[int] = (8, 16, 32)):
        if stdc_type not in self.arch_settings:
            raise ArgumentError('stdc_type must be one of '
                                f'{sorted(self.arch_settings)}, got {stdc_type!r}')
        if bottleneck_type not in ('add', 'cat'):
            raise ArgumentError("bottleneck_type must be 'add' or 'cat', got "
                                f'{bottleneck_type!r}')
        if len(channels) != len(STAGE_STRIDES):
            raise ArgumentError('channels must be those of 5 stages, got '
                                f'{tuple(channels)}')
        strides = check_strides('out_strides', out_strides, STAGE_STRIDES)
        if not strides:
            raise ValueError(f'out_strides must name at least one of {STAGE_STRIDES}')
        super().__init__(
            stdc_type, in_channels, channels, bottleneck_type, norm_cfg, act_cfg,
            num_convs=num_convs, with_final_conv=with_final_conv,
            pretrained=pretrained, init_cfg=init_cfg)
        self.out_strides = strides

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Compute a map (B, C_i, H / s, W / s) for each stride s of ``out_strides``.

        Args:
            x: images, (B, in_channels, H, W).
        """
        maps = {}  # by stride
        for stride, stage in zip(STAGE_STRIDES, self.stages):
            maps[stride] = x = stage(x)
        if self.with_final_conv:
            maps[STAGE_STRIDES[-1]] = self.final_conv(x)
        return tuple(maps[stride] for stride in self.out_strides)


class STDCContextPathNet(BaseModule):
    """Add a context path and feature fusion to an STDC backbone.

    Source: STDC-Seg, section 3.2 and figure 4. Attention refinement modules (ARM) at
    strides 32 and 16 and the global context give context features at stride 8. The
    feature fusion module (FFM) combines these with the backbone's features.

    Args:
        backbone_cfg: config of the backbone.
        last_in_channels: channels of the backbone at strides 32 and 16.
        out_channels: channels of the context features.
        ffm_cfg: arguments of the feature fusion module; ``in_channels`` is the sum of
            the backbone's channels at stride 8 and ``out_channels``.
        upsample_mode: mode of the resizing in the context path.
        align_corners: for bilinear and bicubic modes.
        norm_cfg: config of every norm that ``backbone_cfg`` and ``ffm_cfg`` do not set.
        init_cfg: MMEngine's initialisation of the weights.
        detail_strides: strides, out of 2 and 4, of further backbone maps to return,
            for detail heads. The backbone must take ``out_strides``.

    Raises:
        ValueError: for other ``detail_strides``, and for ``backbone_cfg.out_strides``.
    """

    def __init__(self, backbone_cfg: dict,
                 last_in_channels: Sequence[int] = (1024, 512), out_channels: int = 128,
                 ffm_cfg: dict = dict(
                     in_channels=512, out_channels=256, scale_factor=4),
                 upsample_mode: str = 'nearest', align_corners: Optional[bool] = None,
                 norm_cfg: dict = dict(type='BN'), init_cfg: Optional[dict] = None,
                 detail_strides: Sequence[int] = ()):
        super().__init__(init_cfg)
        detail_strides = check_strides('detail_strides', detail_strides, (2, 4))
        if 'out_strides' in backbone_cfg:
            raise ValueError('leave backbone_cfg.out_strides out; detail_strides '
                             'adds strides 2 and 4')
        backbone_cfg = {'norm_cfg': norm_cfg, **backbone_cfg}
        if detail_strides:
            backbone_cfg['out_strides'] = (8, 16, 32, *detail_strides)
        self.backbone = MODELS.build(backbone_cfg)
        self.arms = ModuleList(
            AttentionRefinementModule(channels, out_channels, norm_cfg=norm_cfg)
            for channels in last_in_channels)
        self.convs = ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, norm_cfg=norm_cfg)
            for _ in last_in_channels)
        self.conv_avg = ConvModule(
            last_in_channels[0], out_channels, 1, norm_cfg=norm_cfg)
        self.ffm = FeatureFusionModule(**{'norm_cfg': norm_cfg, **ffm_cfg})
        self.upsample_mode = upsample_mode
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Compute the features for the heads from images (B, 3, H, W).

        Returns:
            The backbone's map at stride 8 (B, C, H/8, W/8), the context features at
            stride 16 and at stride 8 (B, out_channels, ...), the fused features at
            stride 8 (B, ffm_cfg.out_channels, H/8, W/8), then the backbone's map for
            each of ``detail_strides``.

        Raises:
            InputError: in training, where the batch norm of the global context would
                see one value per channel.
        """
        self._check_batch(x)
        stride8, stride16, stride32, *details = self.backbone(x)
        context = self._resize(
            self.conv_avg(F.adaptive_avg_pool2d(stride32, 1)), stride32)
        context16 = self.convs[0](
            self._resize(self.arms[0](stride32) + context, stride16))
        context8 = self.convs[1](
            self._resize(self.arms[1](stride16) + context16, stride8))
        return (stride8, context16, context8, self.ffm(stride8, context8), *details)

    def _resize(self, x: Tensor, like: Tensor) -> Tensor:
        """Resize a map to the height and width of another."""
        return resize(x, size=like.shape[2:], mode=self.upsample_mode,
                      align_corners=self.align_corners)

    def _check_batch(self, x: Tensor) -> None:
        """Raise InputError before a batch norm fails on one value per channel."""
        norm = getattr(self.conv_avg, 'norm', None)
        if (x.size(0) > 1 or not self.conv_avg.training
                or not isinstance(norm, nn.modules.batchnorm._BatchNorm)
                or not norm.training
                or isinstance(norm, nn.SyncBatchNorm) and get_world_size() > 1):
            return
        raise InputError(
            'STDCContextPathNet cannot train on a batch of 1: the batch norm of the '
            'global context would see one value per channel. Set '
            'train_dataloader.batch_size to 2 or more')


def check_strides(name: str, strides: Sequence[int],
                  accepted: Sequence[int]) -> Tuple[int, ...]:
    """Return ``strides`` as a tuple.

    Raises:
        ValueError: unless they are distinct and accepted.
    """
    strides = (strides, ) if isinstance(strides, int) else tuple(strides)
    if not set(strides) <= set(accepted) or len(set(strides)) < len(strides):
        raise ValueError(f'{name} must be distinct values out of {tuple(accepted)}, '
                         f'got {strides}')
    return strides
