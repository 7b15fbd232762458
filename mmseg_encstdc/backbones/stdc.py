"""STDC backbone and context path (STDC-Seg, arXiv 2104.13188).

Arguments, state-dict keys and numbers are those of MMSegmentation's classes
of the same names; what is new is ``out_strides``, ``detail_strides``, and a
``norm_cfg`` that reaches every norm.
"""
from typing import Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleList
from mmseg.models.backbones.bisenetv1 import AttentionRefinementModule
from mmseg.models.backbones.stdc import FeatureFusionModule
from mmseg.models.backbones.stdc import STDCNet as StockSTDCNet
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..errors import ArgumentError, InputError

__all__ = ['STDCContextPathNet', 'STDCNet']

# Stage i of the backbone works at stride STAGE_STRIDES[i].
STAGE_STRIDES = (2, 4, 8, 16, 32)


class STDCNet(StockSTDCNet):
    """STDC backbone, STDCNet1 (813 MFLOPs) or STDCNet2 (1446 MFLOPs).

    Source: STDC-Seg, section 3.1 and table 2.

    Args:
        stdc_type (str): 'STDCNet1' or 'STDCNet2'.
        in_channels (int): channels of the image. Default: 3.
        channels (Sequence[int]): output channels of the five stages.
            Default: (32, 64, 256, 512, 1024).
        bottleneck_type (str): 'cat' or 'add'. Default: 'cat'.
        norm_cfg (dict): Default: dict(type='BN').
        act_cfg (dict): Default: dict(type='ReLU').
        num_convs (int): convolutions in a block. Default: 4.
        with_final_conv (bool): append a 1x1 conv to max(1024, C) channels to
            the last stage. Default: False.
        out_strides (Sequence[int]): strides of the maps to return, out of
            2, 4, 8, 16, 32, returned in this order. Default: (8, 16, 32).

    Raises:
        ValueError: for another ``stdc_type``, ``bottleneck_type``, number of
            ``channels`` or ``out_strides``.
    """

    def __init__(self,
                 stdc_type: str,
                 in_channels: int = 3,
                 channels: Sequence[int] = (32, 64, 256, 512, 1024),
                 bottleneck_type: str = 'cat',
                 norm_cfg: dict = dict(type='BN'),
                 act_cfg: dict = dict(type='ReLU'),
                 num_convs: int = 4,
                 with_final_conv: bool = False,
                 pretrained: Optional[str] = None,
                 init_cfg: Optional[dict] = None,
                 out_strides: Sequence[int] = (8, 16, 32)):
        if stdc_type not in self.arch_settings:
            raise ArgumentError('stdc_type must be one of '
                                f'{sorted(self.arch_settings)}, got {stdc_type!r}')
        if bottleneck_type not in ('add', 'cat'):
            raise ArgumentError("bottleneck_type must be 'add' or 'cat', got "
                                f'{bottleneck_type!r}')
        if len(channels) != len(STAGE_STRIDES):
            raise ArgumentError('channels must name the channels of 5 stages, '
                                f'got {tuple(channels)}')
        strides = check_strides('out_strides', out_strides, STAGE_STRIDES)
        if not strides:
            raise ValueError('out_strides must name at least one of '
                             f'{STAGE_STRIDES}')
        super().__init__(
            stdc_type,
            in_channels,
            channels,
            bottleneck_type,
            norm_cfg,
            act_cfg,
            num_convs=num_convs,
            with_final_conv=with_final_conv,
            pretrained=pretrained,
            init_cfg=init_cfg)
        self.out_strides = strides

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Maps (B, C_i, H / s, W / s), one for each s of ``out_strides``."""
        at_stride = {}
        for stride, stage in zip(STAGE_STRIDES, self.stages):
            x = stage(x)
            at_stride[stride] = x
        if self.with_final_conv:
            at_stride[STAGE_STRIDES[-1]] = self.final_conv(x)
        return tuple(at_stride[stride] for stride in self.out_strides)


class STDCContextPathNet(BaseModule):
    """STDC backbone with context path and feature fusion.

    Source: STDC-Seg, section 3.2 and figure 4. Attention refinement (ARM)
    at strides 32 and 16 and a global context flow upwards to stride 8, where
    the feature fusion module (FFM) joins the backbone's own features.

    Args:
        backbone_cfg (dict): config of the backbone.
        last_in_channels (Sequence[int]): channels of the backbone at strides
            32 and 16. Default: (1024, 512).
        out_channels (int): channels of the context features. Default: 128.
        ffm_cfg (dict): arguments of the feature fusion module; ``in_channels``
            is the sum of the stride-8 and the context channels.
            Default: dict(in_channels=512, out_channels=256, scale_factor=4).
        upsample_mode (str): Default: 'nearest'.
        align_corners (bool, optional): for bilinear modes. Default: None.
        norm_cfg (dict): config of every norm that ``backbone_cfg`` and
            ``ffm_cfg`` do not set themselves. Default: dict(type='BN').
        detail_strides (Sequence[int]): strides, out of 2 and 4, whose
            backbone maps are returned as well, for detail heads there; the
            backbone must take ``out_strides``. Default: ().
    """

    def __init__(self,
                 backbone_cfg: dict,
                 last_in_channels: Sequence[int] = (1024, 512),
                 out_channels: int = 128,
                 ffm_cfg: dict = dict(
                     in_channels=512, out_channels=256, scale_factor=4),
                 upsample_mode: str = 'nearest',
                 align_corners: Optional[bool] = None,
                 norm_cfg: dict = dict(type='BN'),
                 init_cfg: Optional[dict] = None,
                 detail_strides: Sequence[int] = ()):
        super().__init__(init_cfg)
        detail_strides = check_strides('detail_strides', detail_strides,
                                       (2, 4))
        if 'out_strides' in backbone_cfg:
            raise ValueError('leave backbone_cfg.out_strides out; '
                             'detail_strides adds strides 2 and 4')
        backbone_cfg = {'norm_cfg': norm_cfg, **backbone_cfg}
        if detail_strides:
            backbone_cfg['out_strides'] = (8, 16, 32, *detail_strides)
        self.backbone = MODELS.build(backbone_cfg)
        self.arms = ModuleList(
            AttentionRefinementModule(
                channels, out_channels, norm_cfg=norm_cfg)
            for channels in last_in_channels)
        self.convs = ModuleList(
            ConvModule(
                out_channels, out_channels, 3, padding=1, norm_cfg=norm_cfg)
            for _ in last_in_channels)
        self.conv_avg = ConvModule(
            last_in_channels[0], out_channels, 1, norm_cfg=norm_cfg)
        self.ffm = FeatureFusionModule(**{'norm_cfg': norm_cfg, **ffm_cfg})
        self.upsample_mode = upsample_mode
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Features for the heads, for an image (B, 3, H, W).

        Returns:
            tuple: backbone at stride 8 (B, 256, H/8, W/8), context at stride
            16 and at stride 8 (B, 128, ...), fused features at stride 8
            (B, 256, H/8, W/8), then one map for each of ``detail_strides``.

        Raises:
            ValueError: in training when one image is all that the batch
                norms on the 1 x 1 context maps see.
        """
        self._check_batch(x)
        stride8, stride16, stride32, *details = self.backbone(x)
        context = self._resize(
            self.conv_avg(F.adaptive_avg_pool2d(stride32, 1)), stride32)
        context16 = self.convs[0](
            self._resize(self.arms[0](stride32) + context, stride16))
        context8 = self.convs[1](
            self._resize(self.arms[1](stride16) + context16, stride8))
        fused = self.ffm(stride8, context8)
        return (stride8, context16, context8, fused, *details)

    def _resize(self, x: Tensor, like: Tensor) -> Tensor:
        return resize(
            x,
            size=like.shape[2:],
            mode=self.upsample_mode,
            align_corners=self.align_corners)

    def _check_batch(self, x: Tensor) -> None:
        """Say what is wrong before batch norm fails on one value."""
        if x.size(0) > 1 or not self.conv_avg.training:
            return
        norm = getattr(self.conv_avg, 'norm', None)
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            return
        if isinstance(norm, nn.SyncBatchNorm) and _world_size() > 1:
            return
        if norm.training:
            raise InputError(
                'STDCContextPathNet cannot train on a batch of 1: its batch '
                'norms on 1 x 1 context maps would see one value a channel. '
                'Set train_dataloader.batch_size to 2 or more')


def check_strides(name: str, strides: Sequence[int],
                  accepted: Sequence[int]) -> Tuple[int, ...]:
    """``strides`` as a tuple; ValueError unless distinct and accepted."""
    strides = (strides, ) if isinstance(strides, int) else tuple(strides)
    if not set(strides) <= set(accepted) or len(set(strides)) < len(strides):
        raise ValueError(f'{name} must be distinct values out of '
                         f'{tuple(accepted)}, got {strides}')
    return strides


def _world_size() -> int:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1
