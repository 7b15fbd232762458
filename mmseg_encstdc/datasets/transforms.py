"""Transforms of the authors' pipelines that MMSegmentation does not have."""
from typing import Optional, Tuple

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmcv.transforms.utils import cache_randomness
from mmseg.datasets.transforms import LoadAnnotations

from ..compat.data import DECODE_ERRORS, LOAD_ERRORS, restore_sides
from .sample_checks import (
    check_label_format,
    check_label_values,
    check_size,
    unreadable,
)

__all__ = [
    'ColorJitter', 'EnlargeToCrop', 'LoadSegAnnotations', 'LoadSegImage'
]


class LoadSegImage(LoadImageFromFile):
    """LoadImageFromFile whose failure names the file.

    Raises:
        InputError: when the image cannot be read.
    """

    def transform(self, results: dict) -> Optional[dict]:
        """Add ``img`` (H, W, 3) uint8 BGR, ``img_shape``, ``ori_shape``."""
        try:
            return super().transform(results)
        except LOAD_ERRORS as error:
            raise unreadable('image', results['img_path'], error) from error


class LoadSegAnnotations(LoadAnnotations):
    """LoadAnnotations that refuses labels which cannot be right.

    An image without ``seg_map_path`` passes unchanged, so that a test
    pipeline also serves inference.

    Args:
        num_classes (int, optional): accept only values below it and
            ``ignore_index``, after ``reduce_zero_label`` and label maps. The
            tools fill it in. Default: None, any value.
        ignore_index (int): Default: 255.
        **kwargs: arguments of MMSegmentation's LoadAnnotations.

    Raises:
        InputError: when the label cannot be read, is not of the image's
            size, or holds other values. Each names the file.
    """

    def __init__(self,
                 num_classes: Optional[int] = None,
                 ignore_index: int = 255,
                 **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Add ``gt_seg_map`` (H, W), uint8."""
        if results.get('seg_map_path') is None:
            return results
        return super().transform(results)

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        try:
            size = check_label_format(path)
            super()._load_seg_map(results)
        except DECODE_ERRORS as error:
            raise unreadable('label', path, error) from error
        label = results['gt_seg_map'] = restore_sides(results['gt_seg_map'], size)
        if 'ori_shape' in results:
            check_size(results['img_path'], results['ori_shape'][:2], path,
                       label.shape[:2])
        if self.num_classes is not None:
            check_label_values(path, label, self.num_classes,
                               self.ignore_index)


class ColorJitter(BaseTransform):
    """Random brightness, contrast and saturation, in that order.

    Source: STDC-Seg's training code, which has 0.5 for each. A factor is
    drawn from U(max(0, 1 - v), 1 + v).

    Args:
        brightness (float): v of the brightness. Default: 0.5.
        contrast (float): Default: 0.5.
        saturation (float): Default: 0.5.

    Raises:
        ValueError: for a negative v.
    """

    def __init__(self,
                 brightness: float = 0.5,
                 contrast: float = 0.5,
                 saturation: float = 0.5):
        self.spread = (brightness, contrast, saturation)
        if min(self.spread) < 0:
            raise ValueError('brightness, contrast and saturation must be '
                             f'>= 0, got {self.spread}')

    @cache_randomness
    def factors(self) -> Tuple[float, ...]:
        """The three factors of one image."""
        return tuple(
            np.random.uniform(max(0., 1 - v), 1 + v) for v in self.spread)

    def transform(self, results: dict) -> dict:
        """Change ``img`` (H, W, 3), uint8 BGR."""
        brightness, contrast, saturation = self.factors()
        image = mmcv.adjust_brightness(results['img'], brightness)
        image = mmcv.adjust_contrast(image, contrast)
        results['img'] = mmcv.adjust_color(image, saturation)
        return results

    def __repr__(self) -> str:
        return 'ColorJitter(brightness={}, contrast={}, saturation={})'.format(
            *self.spread)


class EnlargeToCrop(BaseTransform):
    """Enlarge an image that is smaller than the crop, instead of padding it.

    Source: STDC-Seg's training code: to just above the crop (one pixel
    more), keeping the aspect ratio; the image bilinearly, labels by nearest
    neighbour.

    Args:
        crop_size (tuple[int]): (height, width), pixels.
    """

    def __init__(self, crop_size: Tuple[int, int]):
        self.crop_size = tuple(crop_size)

    def transform(self, results: dict) -> dict:
        """Change ``img``, the maps of ``seg_fields`` and ``img_shape``."""
        height, width = results['img'].shape[:2]
        scale = max(self.crop_size[0] / height, self.crop_size[1] / width)
        if scale <= 1:
            return results
        size = (int(width * scale) + 1, int(height * scale) + 1)
        results['img'] = mmcv.imresize(results['img'], size)
        for key in results.get('seg_fields', []):
            results[key] = mmcv.imresize(
                results[key], size, interpolation='nearest')
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'EnlargeToCrop(crop_size={self.crop_size})'
