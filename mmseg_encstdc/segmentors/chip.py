"""Evaluation as the authors of EncNet and of STDC-Seg do it."""
import math
from typing import List, NamedTuple, Optional, Sequence

import torch.nn.functional as F
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor

__all__ = ['PROTOCOLS', 'ChipEncoderDecoder', 'chip_size', 'chip_starts']


class Protocol(NamedTuple):
    """What one group of authors does with overlapping crops."""
    softmax_first: bool  # score exp(softmax + softmax') or exp(logit + logit')
    pad_black: bool  # pad with black pixels, or with the mean colour
    shift_last: bool  # move the last crop inside the image, or pad it
    average: bool  # divide by the number of crops over a pixel, or sum


PROTOCOLS = {
    'encnet': Protocol(False, True, False, True),
    'stdc': Protocol(True, False, True, False),
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
      side ceil(base_size * s); without it, s times the image's own. Scales
      are summed. What comes out are scores, not logits: only their order
      counts.

    All resizing here is bilinear with align_corners=True, as the authors'.

    Raises:
        ValueError: for an unknown ``protocol`` or a missing key of 'chip'.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        cfg = self.test_cfg or {}
        if cfg.get('mode') == 'chip':
            missing = {'protocol', 'crop_size', 'stride_rate'} - set(cfg)
            if missing:
                raise ValueError("test_cfg of mode 'chip' needs "
                                 f'{", ".join(sorted(missing))}')
            if cfg.protocol not in PROTOCOLS:
                raise ValueError('test_cfg.protocol must be one of '
                                 f'{sorted(PROTOCOLS)}, got {cfg.protocol!r}')

    def inference(self, inputs: Tensor, batch_img_metas: List[dict]) -> Tensor:
        """Logits or scores (B, C, H, W) of normalised images (B, 3, H, W)."""
        if self.test_cfg.get('mode', 'whole') == 'chip':
            return self.chip_inference(inputs)
        scale = self.test_cfg.get('scale', 1)
        if scale == 1:
            return super().inference(inputs, batch_img_metas)
        size = inputs.shape[2:]
        small = _resize(inputs, [int(side * scale) for side in size])
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
        crop, size = cfg.crop_size, image.shape[2:]
        image = self._pad(image, crop)
        stride = math.ceil(crop * cfg.stride_rate)
        tops, lefts = (
            chip_starts(side, crop, stride, protocol.shift_last)
            for side in image.shape[2:])
        total = image.new_zeros(
            (image.size(0), self.out_channels, *image.shape[2:]))
        count = image.new_zeros((1, 1, *image.shape[2:]))
        for top in tops:
            for left in lefts:
                window = (..., slice(top, top + crop), slice(left, left + crop))
                chip = image[window]
                height, width = chip.shape[2:]
                scores = self._score_crop(self._pad(chip, crop))
                total[window] += scores[..., :height, :width]
                count[window] += 1
        if protocol.average:
            total = total / count
        return total[..., :size[0], :size[1]]

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

    def _pad(self, image: Tensor, crop: int) -> Tensor:
        """Pad a normalised image (B, 3, h, w) to the right and bottom."""
        height, width = image.shape[2:]
        right, bottom = max(crop - width, 0), max(crop - height, 0)
        if right == bottom == 0:
            return image
        if not PROTOCOLS[self.test_cfg.protocol].pad_black:
            return F.pad(image, (0, right, 0, bottom))
        preprocessor = self.data_preprocessor
        black = -preprocessor.mean / preprocessor.std  # (3, 1, 1)
        return F.pad(image - black, (0, right, 0, bottom)) + black


def chip_size(size: Sequence[int],
              scale: float,
              base_size: Optional[int] = None) -> List[int]:
    """(height, width) of an image at one scale.

    Args:
        size (Sequence[int]): (height, width) of the image, pixels.
        scale (float): factor.
        base_size (int, optional): longer side at scale 1; the image's own
            when None.
    """
    longer = max(size)
    target = math.ceil((base_size or longer) * scale)
    return [
        target if side == longer else int(side * target / longer + 0.5)
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
