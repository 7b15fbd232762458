"""Define transforms for classification that mmcv does not have."""
import math
from typing import Sequence, Tuple

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmengine.structures import BaseDataElement

__all__ = ['PackClassInputs', 'RandomResizedCrop']

ATTEMPTS = 10


class RandomResizedCrop(BaseTransform):
    """Crop a random area of random aspect ratio and resize it to a square.

    The area and the logarithm of the aspect ratio are uniform. A crop that does not
    fit the image is drawn again, up to 10 times; then the largest centred crop of an
    accepted ratio is taken. Source: the training of Inception (arXiv 1409.4842,
    section 6), with the ranges in use since.

    Args:
        size: side of the result, pixels.
        area: smallest and largest area as a fraction of the image's, in (0, 1].
        ratio: smallest and largest width / height.
        interpolation: mmcv's name of the interpolation.
        backend: 'cv2' or 'pillow'; the latter averages where it reduces the size.

    Raises:
        ValueError: for an invalid size or interval.
    """

    def __init__(self, size: int, area: Tuple[float, float] = (0.08, 1.),
                 ratio: Tuple[float, float] = (3 / 4, 4 / 3),
                 interpolation: str = 'bilinear', backend: str = 'cv2'):
        if not (isinstance(size, int) and size > 0):
            raise ValueError(f'size must be a number of pixels, got {size!r}')
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f'area must be an interval in (0, 1], got {area}')
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(
                f'ratio must be an interval of positive numbers, got {ratio}')
        self.size = size
        self.area = tuple(area)
        self.ratio = tuple(ratio)
        self.interpolation = interpolation
        self.backend = backend

    @cache_randomness
    def draw(self, height: int, width: int) -> Tuple[int, int, int, int]:
        """Draw the (top, left, height, width) of a crop, in pixels."""
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
        """Return the largest centred crop of an accepted ratio, as :meth:`draw`."""
        w = max(min(width, round(height * self.ratio[1])), 1)
        h = max(min(height, round(width / self.ratio[0])), 1)
        return (height - h) // 2, (width - w) // 2, h, w

    def transform(self, results: dict) -> dict:
        """Replace ``img`` (H, W, 3) by its crop (size, size, 3); set ``img_shape``."""
        top, left, height, width = self.draw(*results['img'].shape[:2])
        results['img'] = mmcv.imresize(
            results['img'][top:top + height, left:left + width],
            (self.size, self.size), interpolation=self.interpolation,
            backend=self.backend)
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return (f'RandomResizedCrop(size={self.size}, area={self.area}, '
                f'ratio={self.ratio}, interpolation={self.interpolation!r}, '
                f'backend={self.backend!r})')


class PackClassInputs(BaseTransform):
    """Pack an image and its class for a classifier.

    Args:
        meta_keys: entries to copy to the data sample's metainfo, where they exist.
    """

    def __init__(self,
                 meta_keys: Sequence[str] = ('img_path', 'ori_shape', 'img_shape')):
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Convert ``img`` (H, W, 3) and ``gt_label`` to tensors.

        Returns:
            ``inputs`` (3, H, W) of the image's type, and ``data_samples``, a
            BaseDataElement with ``gt_label`` (int64 scalar) if the image has one.
        """
        sample = BaseDataElement(metainfo={
            key: results[key] for key in self.meta_keys if key in results})
        if results.get('gt_label') is not None:
            sample.gt_label = torch.tensor(results['gt_label'])
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        return dict(inputs=torch.from_numpy(image), data_samples=sample)

    def __repr__(self) -> str:
        return f'PackClassInputs(meta_keys={self.meta_keys})'
