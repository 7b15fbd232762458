"""Evaluation as the authors of EncNet and of STDC-Seg do it."""
import math
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

import torch.nn.functional as F
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor

__all__ = ['PROTOCOLS', 'ChipEncoderDecoder', 'chip_size', 'chip_starts']


class Protocol(NamedTuple):
    """What one group of authors does with overlapping crops."""
    softmax_first: bool  # score exp(softmax + softmax') or exp(logit + logit')
    pad_black: bool  # pad with black pixels, or with the mean colour
    centre: bool  # pad on all sides, or to the right and bottom
    shift_last: bool  # move the last crop inside the image, or pad it
    average: bool  # divide by the number of crops over a pixel, or sum
    round_stride: Callable[[float], int]


PROTOCOLS = {
    'encnet': Protocol(False, True, False, False, True, math.floor),
    'stdc': Protocol(True, False, True, True, False, math.ceil),
}


class ChipEncoderDecoder(EncoderDecoder):
    """EncoderDecoder with the authors' test protocols.

    ``test_cfg`` takes, beside the stock modes 'whole' and 'slide':

    - ``scale`` (float, modes 'whole' and 'slide'): the normalised image is
      resized by this factor before it enters the network, and the logits are
      resized to that size, then back. STDC-Seg50 and 75 are 0.5 and 0.75.
    - ``mode='chip'``: scores of overlapping square crops at several scales,
      with ``protocol`` ('encnet' or 'stdc'), ``crop_size`` (int, pixels),
      ``stride_rate`` (float, of the crop), ``scales`` (floats), ``flip``
      (bool) and ``base_size`` (int, optional): a scale s makes the longer
      side ceil(base_size * s); without it, both sides are s times the
      image's. Scales are summed. What comes out are scores, not logits: only
      their order counts.

    All resizing here is bilinear with align_corners=True, as the authors'.

    Raises:
        ValueError: for a missing or wrong key of mode 'chip'.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if (self.test_cfg or {}).get('mode') == 'chip':
            check_chip_config(self.test_cfg)

    def inference(self, inputs: Tensor, batch_img_metas: List[dict]) -> Tensor:
        """Logits or scores (B, C, H, W) of normalised images (B, 3, H, W)."""
        if self.test_cfg.get('mode', 'whole') == 'chip':
            return self.chip_inference(inputs)
        scale = self.test_cfg.get('scale', 1)
        if scale == 1:
            return super().inference(inputs, batch_img_metas)
        size = inputs.shape[2:]
        small = _resize(inputs, chip_size(size, scale))
        metas = [
            dict(ori_shape=meta['ori_shape'], img_shape=small.shape[2:])
            for meta in batch_img_metas
        ]
        return _resize(super().inference(small, metas), size)

    def chip_inference(self, inputs: Tensor) -> Tensor:
        """Scores (B, C, H, W), summed over ``test_cfg.scales``."""
        cfg, size = self.test_cfg, inputs.shape[2:]
        scores = 0
        for scale in cfg.get('scales', (1., )):
            scaled = _resize(inputs,
                             chip_size(size, scale, cfg.get('base_size')))
            scores = scores + _resize(self._score_chips(scaled), size)
        return scores

    def _score_chips(self, image: Tensor) -> Tensor:
        """Scores (B, C, h, w) of one scale of the image (B, 3, h, w)."""
        cfg, protocol = self.test_cfg, PROTOCOLS[self.test_cfg.protocol]
        crop, (height, width) = cfg.crop_size, image.shape[2:]
        image, top0, left0 = self._pad(image, crop)
        stride = protocol.round_stride(crop * cfg.stride_rate)
        tops, lefts = (
            chip_starts(side, crop, stride, protocol.shift_last)
            for side in image.shape[2:])
        total = image.new_zeros(
            (image.size(0), self.out_channels, *image.shape[2:]))
        count = image.new_zeros((1, 1, *image.shape[2:]))
        for top in tops:
            for left in lefts:
                window = (..., slice(top, top + crop), slice(left, left + crop))
                chip, _, _ = self._pad(image[window], crop)
                rows, columns = total[window].shape[2:]
                total[window] += self._score_crop(chip)[..., :rows, :columns]
                count[window] += 1
        if protocol.average:
            total = total / count
        return total[..., top0:top0 + height, left0:left0 + width]

    def _score_crop(self, crop: Tensor) -> Tensor:
        """Score (B, C, h, w) of a crop, and of its mirror image if asked."""
        views = [self._logits(crop)]
        if self.test_cfg.get('flip', False):
            views.append(self._logits(crop.flip(3)).flip(3))
        if PROTOCOLS[self.test_cfg.protocol].softmax_first:
            views = [view.softmax(1) for view in views]
        return sum(views).exp()

    def _logits(self, image: Tensor) -> Tensor:
        meta = dict(img_shape=image.shape[2:])
        return self.encode_decode(image, [meta] * image.size(0))

    def _pad(self, image: Tensor, crop: int) -> Tuple[Tensor, int, int]:
        """A normalised image (B, 3, h, w) padded to ``crop``, and where in it
        the image begins (top, left)."""
        protocol = PROTOCOLS[self.test_cfg.protocol]
        rows, columns = (max(crop - side, 0) for side in image.shape[2:])
        if rows == columns == 0:
            return image, 0, 0
        top, left = (rows // 2, columns // 2) if protocol.centre else (0, 0)
        margins = (left, columns - left, top, rows - top)
        if not protocol.pad_black:
            return F.pad(image, margins), top, left
        preprocessor = self.data_preprocessor
        black = -preprocessor.mean / preprocessor.std  # (3, 1, 1)
        return F.pad(image - black, margins) + black, top, left


def check_chip_config(cfg: dict) -> None:
    """Raise ValueError unless ``cfg`` says all that mode 'chip' needs."""
    missing = {'protocol', 'crop_size', 'stride_rate'} - set(cfg)
    if missing:
        raise ValueError("test_cfg of mode 'chip' needs "
                         f'{", ".join(sorted(missing))}')
    if cfg['protocol'] not in PROTOCOLS:
        raise ValueError('test_cfg.protocol must be one of '
                         f'{sorted(PROTOCOLS)}, got {cfg["protocol"]!r}')
    crop, rate = cfg['crop_size'], cfg['stride_rate']
    if not isinstance(crop, int) or crop < 1:
        raise ValueError('test_cfg.crop_size must be the side of a square '
                         f'crop in pixels, got {crop!r}')
    if not 1 <= crop * rate <= crop:
        raise ValueError('test_cfg.stride_rate must be between 1 / crop_size '
                         f'and 1, or pixels stay unscored; got {rate}')
    if not cfg.get('scales', (1., )):
        raise ValueError('test_cfg.scales must name at least one scale')


def chip_size(size: Sequence[int],
              scale: float,
              base_size: Optional[int] = None) -> List[int]:
    """(height, width) of an image at one scale.

    Args:
        size (Sequence[int]): (height, width) of the image, pixels.
        scale (float): factor.
        base_size (int, optional): longer side at scale 1, and the other in
            proportion; without it both sides are scaled and cut to integers.
    """
    if base_size is None:
        return [max(int(side * scale), 1) for side in size]
    longer = max(size)
    target = math.ceil(base_size * scale)
    return [
        target if side == longer else max(
            int(side * target / longer + 0.5), 1)
        for side in size
    ]


def chip_starts(side: int, crop: int, stride: int,
                shift_last: bool) -> List[int]:
    """Where the crops that cover one side of an image begin.

    Args:
        side (int): length of the side, at least ``crop``.
        crop (int): length of a crop.
        stride (int): distance of two crops.
        shift_last (bool): let the last crop end with the image, instead of
            reaching beyond it.
    """
    count = math.ceil((side - crop) / stride) + 1
    return [
        min(i * stride, side - crop) if shift_last else i * stride
        for i in range(count)
    ]


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode='bilinear', align_corners=True)
