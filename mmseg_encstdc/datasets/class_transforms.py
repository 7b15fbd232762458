"""Transforms of classification that mmcv does not have."""
import math
from typing import Sequence, Tuple

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmengine.structures import BaseDataElement

__all__ = ['PackClassInputs', 'RandomResizedCrop']

# Draws of a crop before the centre is taken.
ATTEMPTS = 10


class RandomResizedCrop(BaseTransform):
    """A crop of random area and aspect ratio, resized to a square.

    The area is uniform in ``area`` times that of the image, the logarithm of
    width / height uniform between those of ``ratio``. A crop that does not
    fit is drawn again, up to 10 times; then the largest centred one whose
    ratio is accepted is taken. Source: the training of Inception (arXiv
    1409.4842, section 6), with the ranges that are usual since.

    Args:
        size (int): side of the result, pixels.
        area (tuple[float]): smallest and largest share of the image's area,
            in (0, 1]. Default: (0.08, 1).
        ratio (tuple[float]): smallest and largest width / height.
            Default: (3 / 4, 4 / 3).
        interpolation (str): mmcv's name of it. Default: 'bilinear'.
        backend (str): 'cv2' or 'pillow'; the latter averages where it
            shrinks. Default: 'cv2'.

    Raises:
        ValueError: for a size or a range that no crop can have.
    """

    def __init__(self,
                 size: int,
                 area: Tuple[float, float] = (0.08, 1.),
                 ratio: Tuple[float, float] = (3 / 4, 4 / 3),
                 interpolation: str = 'bilinear',
                 backend: str = 'cv2'):
        if not (isinstance(size, int) and size > 0):
            raise ValueError(f'size must be a number of pixels, got {size!r}')
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f'area must be an interval in (0, 1], got {area}')
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError('ratio must be an interval of positive numbers, '
                             f'got {ratio}')
        self.size = size
        self.area = tuple(area)
        self.ratio = tuple(ratio)
        self.interpolation = interpolation
        self.backend = backend

    @cache_randomness
    def draw(self, height: int, width: int) -> Tuple[int, int, int, int]:
        """(top, left, height, width) of a crop of an image of this size."""
        low, high = map(math.log, self.ratio)
        for _ in range(ATTEMPTS):
            area = height * width * np.random.uniform(*self.area)
            ratio = math.exp(np.random.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = np.random.randint(height - h + 1)
                return top, np.random.randint(width - w + 1), h, w
        return self.centre(height, width)

    def centre(self, height: int, width: int) -> Tuple[int, int, int, int]:
        """The largest centred crop of an accepted ratio."""
        w = max(min(width, round(height * self.ratio[1])), 1)
        h = max(min(height, round(width / self.ratio[0])), 1)
        return (height - h) // 2, (width - w) // 2, h, w

    def transform(self, results: dict) -> dict:
        """Change ``img`` (H, W, 3) to (size, size, 3), and ``img_shape``."""
        top, left, height, width = self.draw(*results['img'].shape[:2])
        crop = results['img'][top:top + height, left:left + width]
        results['img'] = mmcv.imresize(
            crop, (self.size, self.size),
            interpolation=self.interpolation,
            backend=self.backend)
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return (f'RandomResizedCrop(size={self.size}, area={self.area}, '
                f'ratio={self.ratio}, interpolation={self.interpolation!r}, '
                f'backend={self.backend!r})')


class PackClassInputs(BaseTransform):
    """What a classifier takes: an image, and a data sample with its label.

    Args:
        meta_keys (Sequence[str]): what the data sample says of the image,
            where it is known. Default: ('img_path', 'ori_shape',
            'img_shape').
    """

    def __init__(self,
                 meta_keys: Sequence[str] = ('img_path', 'ori_shape',
                                             'img_shape')):
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """``img`` (H, W, 3) and ``gt_label`` as tensors.

        Returns:
            dict: ``inputs`` (3, H, W) of the image's type, and
            ``data_samples``, a BaseDataElement with ``gt_label`` (int64
            scalar) unless the image has none.
        """
        sample = BaseDataElement(metainfo={
            key: results[key] for key in self.meta_keys if key in results
        })
        if results.get('gt_label') is not None:
            sample.gt_label = torch.tensor(results['gt_label'])
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        return dict(inputs=torch.from_numpy(image), data_samples=sample)

    def __repr__(self) -> str:
        return f'PackClassInputs(meta_keys={self.meta_keys})'
