"""Define the Encoding layer and the context encoding module of EncNet."""
from operator import index
from typing import Optional, Tuple

import torch
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..ops import encode
from ..ops.encode.arguments import MAX_CODES, order_hint

__all__ = ['ContextEncoding', 'Encoding']

HALVES = (torch.float16, torch.bfloat16)


class Encoding(nn.Module):
    """Sum the residuals to learned codewords, weighted by their assignment.

    Source: EncNet (arXiv 1803.08904), section 3.

    Float32 parameters encode features in float32, float16 or bfloat16; float64
    parameters encode float64 features. The result has the type of the parameters.
    Parameters in half precision, as ``model.half()`` makes them, are converted to
    float32 and the result is converted back; they take no float64 features.

    Args:
        channels: D, channels of the features, at least 1.
        num_codes: K, number of codewords, 1 to 256.

    Raises:
        TypeError: when either is not an integer.
        ValueError: when either is out of range.
    """

    def __init__(self, channels: int, num_codes: int):
        super().__init__()
        self.channels = _size('channels', channels)
        self.num_codes = _size('num_codes', num_codes, MAX_CODES)
        bound = (self.num_codes * self.channels)**-0.5
        self.codewords = nn.Parameter(  # (K, D)
            torch.empty(self.num_codes, self.channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(  # (K, )
            torch.empty(self.num_codes).uniform_(-1, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Encode features (B, D, N) or (B, D, H, W) as (B, K, D).

        Raises:
            RuntimeError: for another rank.
            ValueError: when the channels are not D.
            TypeError: when the types of x and of the parameters do not fit.
        """
        self._check(x)
        codewords, scale = self.codewords, self.scale
        if codewords.dtype in HALVES:
            return encode(x, codewords.float(), scale.float()).to(codewords.dtype)
        return encode(x, codewords, scale)

    def _check(self, x: Tensor) -> None:
        """Check rank, channels and type of x, (B, D, N) or (B, D, H, W)."""
        if x.dim() not in (3, 4):
            raise RuntimeError('Encoding takes (B, D, N) or (B, D, H, W), '
                               f'got {tuple(x.shape)}')
        if torch.jit.is_tracing():  # a comparison of sizes warns
            return
        if x.size(1) != self.channels:
            raise ValueError(
                f'x {tuple(x.shape)} has {x.size(1)} channels; this Encoding '
                'takes (B, D, N) or (B, D, H, W) with D = channels = '
                f'{self.channels}{order_hint(x, self.channels)}')
        if x.dtype == torch.float64 and self.codewords.dtype in HALVES:
            raise TypeError(
                f'x is {x.dtype} and the parameters {self.codewords.dtype}; '
                'give x in float32 or half precision, or call .double() on '
                'the layer')

    def extra_repr(self) -> str:
        return f'channels={self.channels}, num_codes={self.num_codes}'


class ContextEncoding(BaseModule):
    """Weight the channels of a feature map by the encoded semantics of the scene.

    The encoded semantics e (B, D) are the reduced output of the Encoding layer. The
    featuremap attention gives ReLU(x + x * sigmoid(Linear(e))). Source: EncNet
    (arXiv 1803.08904), section 3 and figure 2. State-dict keys are MMSegmentation's.

    Args:
        in_channels: D, channels of the feature map.
        num_codes: K, number of codewords.
        reduction: 'mean' (the authors' code) or 'sum' (the paper) of the K encodings.
        conv_cfg: config of the 1x1 convolution.
        norm_cfg: config of the norm layers; the norm over codewords is its 1d form.
            None gives the projection no norm and the codewords BN1d.
        act_cfg: activation of the projection.
        init_cfg: MMEngine's initialisation of the weights.

    Raises:
        ValueError: for another ``reduction``.
    """

    def __init__(self, in_channels: int, num_codes: int = 32, reduction: str = 'mean',
                 conv_cfg: Optional[dict] = None, norm_cfg: Optional[dict] = None,
                 act_cfg: dict = dict(type='ReLU'), init_cfg: Optional[dict] = None):
        super().__init__(init_cfg)
        if reduction not in ('mean', 'sum'):
            raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        self.reduction = reduction
        self.encoding_project = ConvModule(
            in_channels, in_channels, 1,
            conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.encoding = nn.Sequential(
            Encoding(in_channels, num_codes),
            build_norm_layer(_norm_1d(norm_cfg), num_codes)[1],
            nn.ReLU(inplace=True))
        self.fc = nn.Sequential(nn.Linear(in_channels, in_channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the encoded semantics (B, D) and the weighted map (B, D, H, W).

        Args:
            x: feature map, (B, D, H, W).
        """
        encodings = self.encoding(self.encoding_project(x))  # (B, K, D)
        semantics = getattr(encodings, self.reduction)(dim=1)  # (B, D)
        gamma = self.fc(semantics)[:, :, None, None]  # (B, D, 1, 1)
        return semantics, torch.relu(x + x * gamma)


def _size(name: str, value: int, most: Optional[int] = None) -> int:
    """Return ``value`` as an int; raise unless it is an integer from 1 to ``most``."""
    try:
        value = index(value)
    except TypeError:
        raise TypeError(f'{name} must be an integer, got {value!r}') from None
    if value < 1 or most is not None and value > most:
        accepted = 'at least 1' if most is None else f'1 to {most}'
        raise ValueError(f'{name} must be {accepted}, got {value}')
    return value


def _norm_1d(norm_cfg: Optional[dict]) -> dict:
    """Return the config of the same norm for input (B, K, D)."""
    if norm_cfg is None:
        return dict(type='BN1d')
    kind = norm_cfg['type']
    if kind in ('BN', 'IN'):
        kind += '1d'
    return {**norm_cfg, 'type': kind.replace('2d', '1d')}
