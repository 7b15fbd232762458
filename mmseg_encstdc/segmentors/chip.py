"""Evaluate images as the authors of EncNet and of STDC-Seg do."""
import math
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor

__all__ = ['ChipEncoderDecoder', 'chip_size', 'chip_starts']

SATURATED = 40.  # logit whose sigmoid is 1 in float32, and exp(2 x) is finite


class Protocol(NamedTuple):
    """Describe the authors' evaluation of overlapping crops.

    Attributes:
        softmax_first: add the softmax of a crop and of its mirror image, not the
            logits, before the exponential.
        pad_black: pad with black pixels, not with the mean colour.
        centre: pad on all sides, not to the right and bottom only.
        shift_last: move the last crop inside the image instead of padding it.
        average: divide by the number of crops at a pixel.
        round_stride: rounding of the step between neighbouring crops.
    """
    softmax_first: bool
    pad_black: bool
    centre: bool
    shift_last: bool
    average: bool
    round_stride: Callable[[float], int]


PROTOCOLS = {
    'encnet': Protocol(False, True, False, False, True, math.floor),
    'stdc': Protocol(True, False, True, True, False, math.ceil),
}


class ChipEncoderDecoder(EncoderDecoder):
    """Add the authors' test protocols to MMSegmentation's EncoderDecoder.

    ``test_cfg`` has two additions to MMSegmentation's modes 'whole' and 'slide':

    - ``scale`` (float, modes 'whole' and 'slide'): multiply height and width of the
      normalised image by this factor before the network. The logits are resized to the
      scaled image, then to the image. STDC-Seg50 uses 0.5, STDC-Seg75 uses 0.75.
    - ``mode='chip'``: score overlapping square crops (chips) at several scales.
      ``protocol`` is 'encnet' or 'stdc', ``crop_size`` an int in pixels,
      ``stride_rate`` the step between neighbouring crops as a fraction of
      ``crop_size``, ``scales`` a sequence of floats, ``flip`` a bool, and
      ``base_size`` an optional int (see :func:`chip_size`). The scores of all scales
      are added. They are not logits: only their order has a meaning.
      A network of one channel is scored as one of two, whose logits are that of
      ``threshold`` and its own.

    Resizing is bilinear with align_corners=True, as the authors'.

    Raises:
        ValueError: for a missing or invalid key of mode 'chip'.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if (self.test_cfg or {}).get('mode') == 'chip':
            check_chip_config(self.test_cfg)
            threshold = self.decode_head.threshold
            if self.out_channels == 1 and not 0 < threshold < 1:
                raise ValueError("mode 'chip' needs a decode_head.threshold in (0, 1), "
                                 f'got {threshold}')

    def inference(self, inputs: Tensor, batch_img_metas: List[dict]) -> Tensor:
        """Return logits or scores (B, C, H, W) of normalised images (B, C_in, H, W)."""
        size = inputs.shape[2:]
        if self.test_cfg.get('mode', 'whole') == 'chip':
            scores = sum(self._score_scale(inputs, scale)
                         for scale in self.test_cfg.get('scales', (1., )))
            return scores if self.out_channels > 1 else self._one_channel(scores)
        scale = self.test_cfg.get('scale', 1)
        if scale == 1:
            return super().inference(inputs, batch_img_metas)
        scaled = _resize(inputs, chip_size(size, scale))
        metas = [dict(ori_shape=meta['ori_shape'], img_shape=scaled.shape[2:])
                 for meta in batch_img_metas]
        return _resize(super().inference(scaled, metas), size)

    def _score_scale(self, inputs: Tensor, scale: float) -> Tensor:
        """Return the scores (B, C, H, W) of images (B, C_in, H, W) at one scale."""
        cfg, protocol = self.test_cfg, PROTOCOLS[self.test_cfg.protocol]
        crop, input_size = cfg.crop_size, inputs.shape[2:]
        image = _resize(inputs, chip_size(input_size, scale, cfg.get('base_size')))
        height, width = image.shape[2:]
        image, top0, left0 = self._pad(image)
        stride = protocol.round_stride(crop * cfg.stride_rate)
        tops, lefts = (chip_starts(side, crop, stride, protocol.shift_last)
                       for side in image.shape[2:])
        total = image.new_zeros(
            (image.size(0), max(self.out_channels, 2), *image.shape[2:]))
        count = image.new_zeros((1, 1, *image.shape[2:]))
        for top in tops:
            for left in lefts:
                window = (..., slice(top, top + crop), slice(left, left + crop))
                chip, _, _ = self._pad(image[window])
                rows, columns = total[window].shape[2:]
                total[window] += self._score_crop(chip)[..., :rows, :columns]
                count[window] += 1
        if protocol.average:
            total = total / count
        total = total[..., top0:top0 + height, left0:left0 + width]
        return _resize(total, input_size)

    def _score_crop(self, crop: Tensor) -> Tensor:
        """Return the scores (B, C, h, w) of crops (B, C_in, h, w)."""
        metas = [dict(img_shape=crop.shape[2:])] * crop.size(0)
        views = [self.encode_decode(crop, metas)]
        if self.test_cfg.get('flip', False):
            views.append(self.encode_decode(crop.flip(3), metas).flip(3))
        if self.out_channels == 1:
            views = [self._two_channels(view) for view in views]
        if PROTOCOLS[self.test_cfg.protocol].softmax_first:
            views = [view.softmax(1) for view in views]
        return sum(views).exp()

    def _two_channels(self, logits: Tensor) -> Tensor:
        """Return logits (B, 2, h, w) whose larger one is the label of (B, 1, h, w)."""
        foreground = (logits - self._threshold()).clamp(-SATURATED, SATURATED)
        return torch.cat([torch.zeros_like(foreground), foreground], 1)

    def _one_channel(self, scores: Tensor) -> Tensor:
        """Return a logit (B, 1, H, W), above the threshold where the second score is.

        Args:
            scores: of background and foreground, (B, 2, H, W).
        """
        background, foreground = scores.log().chunk(2, 1)
        return foreground - background + self._threshold()

    def _threshold(self) -> float:
        """Return the logit of the head's threshold, a probability."""
        probability = self.decode_head.threshold
        return math.log(probability / (1 - probability))

    def _pad(self, image: Tensor) -> Tuple[Tensor, int, int]:
        """Pad a normalised image (B, C_in, h, w) to at least the crop size.

        Returns:
            The padded image, and the row and column where the image begins in it.
        """
        protocol, crop = PROTOCOLS[self.test_cfg.protocol], self.test_cfg.crop_size
        rows, columns = (max(crop - side, 0) for side in image.shape[2:])
        if rows == columns == 0:
            return image, 0, 0
        top, left = (rows // 2, columns // 2) if protocol.centre else (0, 0)
        margins = (left, columns - left, top, rows - top)
        if not protocol.pad_black:
            return F.pad(image, margins), top, left
        preprocessor = self.data_preprocessor
        if getattr(preprocessor, 'mean', None) is None:  # not normalised
            return F.pad(image, margins), top, left
        black = -preprocessor.mean / preprocessor.std  # (C_in, 1, 1)
        return F.pad(image - black, margins) + black, top, left


def check_chip_config(cfg: dict) -> None:
    """Check the keys of mode 'chip'.

    Raises:
        ValueError: naming the missing or invalid key.
    """
    missing = {'protocol', 'crop_size', 'stride_rate'} - set(cfg)
    if missing:
        raise ValueError("test_cfg of mode 'chip' needs "
                         f'{", ".join(sorted(missing))}')
    if cfg['protocol'] not in PROTOCOLS:
        raise ValueError(f'test_cfg.protocol must be one of {sorted(PROTOCOLS)}, got '
                         f'{cfg["protocol"]!r}')
    crop, rate = cfg['crop_size'], cfg['stride_rate']
    if not isinstance(crop, int) or crop < 1:
        raise ValueError('test_cfg.crop_size must be the side of a square crop in '
                         f'pixels, got {crop!r}')
    if not 1 <= crop * rate <= crop:
        raise ValueError('test_cfg.stride_rate must be between 1 / crop_size and 1, '
                         f'so that crops cover the image; got {rate}')
    if not cfg.get('scales', (1., )):
        raise ValueError('test_cfg.scales must name at least one scale')


def chip_size(size: Sequence[int], scale: float,
              base_size: Optional[int] = None) -> List[int]:
    """Return the (height, width) in pixels of an image at one scale.

    Args:
        size: (height, width) of the image, pixels.
        scale: factor.
        base_size: longer side at scale 1; the aspect ratio is kept. None scales both
            sides and rounds down.
    """
    if base_size is None:
        return [max(int(side * scale), 1) for side in size]
    longer = max(size)
    target = math.ceil(base_size * scale)
    return [target if side == longer else max(int(side * target / longer + 0.5), 1)
            for side in size]


def chip_starts(side: int, crop: int, stride: int, shift_last: bool) -> List[int]:
    """Return where the crops that cover one side of an image begin, in pixels.

    Args:
        side: length of the side, at least ``crop``.
        crop: length of a crop.
        stride: distance of two crops.
        shift_last: let the last crop end with the image, not beyond it.
    """
    starts = range(0, side - crop + stride, stride)
    return [min(start, side - crop) for start in starts] if shift_last else list(starts)


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (B, C, h, w) to (height, width)."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode='bilinear', align_corners=True)
