"""Define loaders that check their files, and the authors' augmentations."""
from typing import Dict, Optional, Tuple

import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmcv.transforms.utils import cache_randomness
from mmseg.datasets.transforms import LoadAnnotations

from ..compat.data import DECODE_ERRORS, LOAD_ERRORS, restore_sides
from ..errors import InputError
from .array_cache import cached_array
from .image_files import DTYPES, check_eight_bit, check_pixels, read_bands
from .image_formats import label_orientation, turn
from .label_values import LabelValues
from .sample_checks import (
    check_label_format,
    check_label_values,
    check_size,
    unreadable,
)

__all__ = ['ColorJitter', 'EnlargeToCrop', 'LoadSegAnnotations', 'LoadSegImage']


class LoadSegImage(LoadImageFromFile):
    """Load an image, as 8-bit BGR or as the bands of its file; an error names the file.

    With the default ``bands`` and ``dtype``, mmcv's loader reads the file: grey images
    and palettes become BGR, alpha is dropped. A file whose values it would change, such
    as one of 16 bits, is rejected. Other settings read PNG, TIFF and what else OpenCV
    knows as they are; TIFF files of several bands need the package tifffile. The image
    is turned as EXIF says, which is the grid that viewers show.

    Args:
        bands: number of bands of all files, with alpha.
        dtype: type of the pixels of all files: 'uint8', 'uint16', 'int16', 'uint32',
            'int32', 'float32' or 'float64'. Other than uint8 become float32, with the
            values of the file; mean and std of the data preprocessor are in the same
            units.
        cache_dir: folder in which decoded images are kept; see :func:`cached_array`.
        **kwargs: arguments of mmcv's LoadImageFromFile. ``color_type`` and
            ``imdecode_backend`` go with the default ``bands`` and ``dtype`` only.

    Raises:
        InputError: when an argument is not accepted, the image cannot be read, is
            above the limit of pixels, has other bands or pixels of another type, or
            holds NaN or infinity.
    """

    def __init__(self, bands: int = 3, dtype: str = 'uint8',
                 cache_dir: Optional[str] = None, **kwargs):
        if isinstance(bands, bool) or not isinstance(bands, int) or bands < 1:
            raise InputError('LoadSegImage: bands must be the number of bands, 1 or '
                             f'more, got {bands!r}')
        if dtype not in DTYPES:
            raise InputError(f'LoadSegImage: dtype must be one of {", ".join(DTYPES)}, '
                             f'got {dtype!r}')
        super().__init__(**kwargs)
        self.bands, self.dtype = bands, dtype
        self.cache_dir = cache_dir
        self.reads_bands = (bands, dtype) != (3, 'uint8')
        for name, default in (('color_type', 'color'), ('imdecode_backend', 'cv2')):
            if self.reads_bands and getattr(self, name) != default:
                raise InputError(f'LoadSegImage: {name} is for bands=3 and '
                                 "dtype='uint8'; leave it out, the file is read as it "
                                 'is')

    def transform(self, results: dict) -> Optional[dict]:
        """Add ``img``, ``img_shape`` and ``ori_shape``.

        ``img`` is (H, W, bands), or (H, W) for one band; uint8, or float32 for another
        ``dtype``. Three bands are BGR, others in the order of the file.
        """
        if self.cache_dir is None:
            return self._load(results)
        image = cached_array(self.cache_dir, (results['img_path'], ), repr(self),
                             lambda: (self._load(results) or {}).get('img'))
        if image is None:  # ignore_empty of mmcv's loader
            return None
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _load(self, results: dict) -> Optional[dict]:
        """Do what ``transform`` does, from the file of the image."""
        path = results['img_path']
        check_pixels(path)
        try:
            if self.reads_bands:
                return self._load_bands(results)
            if self.imdecode_backend != 'tifffile':
                check_eight_bit(path, keeps_depth=self.color_type == 'unchanged')
            return super().transform(results)
        except LOAD_ERRORS as error:
            raise unreadable('image', path, error) from error

    def _load_bands(self, results: dict) -> dict:
        """Read the file as it is."""
        path = results['img_path']
        image = read_bands(fileio.get(path, backend_args=self.backend_args), path,
                           self.bands, self.dtype)
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, bands={self.bands}, dtype={self.dtype!r})'


class LoadSegAnnotations(LoadAnnotations):
    """Load a label map with MMSegmentation's loader and check it.

    The label of a photograph that EXIF turns by 90 degrees may be drawn on the turned
    or on the stored pixels: its sides tell which, and it is turned like its image. A
    label of a square image, or of one that is mirrored or upside down, must be drawn on
    what viewers show.

    An image without ``seg_map_path`` is returned unchanged, so that a test pipeline
    also serves inference.

    Args:
        num_classes: accept only ids below it and ``ignore_index``, after
            ``reduce_zero_label`` and the label map. The tools set it. None accepts
            every id.
        ignore_index: id of ignored pixels.
        values: class id, or ``ignore_index``, of each id in the files, such as
            ``{0: 0, 255: 1}``; then other ids in a file are an error. It precedes the
            label map and excludes ``reduce_zero_label``. None keeps the ids.
        cache_dir: folder in which loaded labels are kept; see :func:`cached_array`.
        **kwargs: arguments of MMSegmentation's LoadAnnotations.

    Raises:
        InputError: when the label cannot be read, has another size than the image, or
            holds other ids.
    """

    def __init__(self, num_classes: Optional[int] = None, ignore_index: int = 255,
                 values: Optional[Dict[int, int]] = None,
                 cache_dir: Optional[str] = None, **kwargs):
        super().__init__(**kwargs)
        self.cache_dir = cache_dir
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.given_values = values
        self.values = None if values is None else LabelValues(values, ignore_index)

    def transform(self, results: dict) -> dict:
        """Add ``gt_seg_map`` (H, W), uint8."""
        if results.get('seg_map_path') is None:
            return results
        return super().transform(results)

    def _load_seg_map(self, results: dict) -> None:
        """Load the file, or take what was kept of it."""
        if self.cache_dir is None:
            self._load_checked(results)
            return
        settings = [repr(self), self.num_classes, self.ignore_index, self.given_values,
                    results.get('label_map'), results.get('reduce_zero_label'),
                    results.get('ori_shape')]

        def load() -> np.ndarray:
            self._load_checked(results)
            return results['gt_seg_map']

        results['gt_seg_map'] = cached_array(
            self.cache_dir, (results['seg_map_path'], results.get('img_path')),
            repr(settings), load)
        if 'gt_seg_map' not in results['seg_fields']:
            results['seg_fields'].append('gt_seg_map')

    def _load_checked(self, results: dict) -> None:
        """Load the file and check its format, size and ids."""
        path = results['seg_map_path']
        try:
            size = check_label_format(path)
            self._load_ids(results)
        except DECODE_ERRORS as error:
            raise unreadable('label', path, error) from error
        label = results['gt_seg_map'] = restore_sides(results['gt_seg_map'], size)
        if 'ori_shape' in results:
            label = results['gt_seg_map'] = turn(label, label_orientation(
                results['img_path'], results['ori_shape'][:2], label.shape[:2]))
            check_size(results['img_path'], results['ori_shape'][:2], path,
                       label.shape[:2])
        if self.num_classes is not None:
            check_label_values(path, label, self.num_classes, self.ignore_index)

    def _load_ids(self, results: dict) -> None:
        """Load the file and map its ids by ``values`` and the label map."""
        if self.values is None:
            super()._load_seg_map(results)
            return
        if self.reduce_zero_label or results.get('reduce_zero_label'):
            raise InputError('LoadSegAnnotations(values=...) excludes '
                             'reduce_zero_label; name the class of each id in values '
                             'and set reduce_zero_label=False in the data set')
        label_map, results['label_map'] = results.get('label_map'), None
        super()._load_seg_map(results)
        ids = self.values(results['gt_seg_map'], results['seg_map_path'])
        results['label_map'] = label_map
        table = np.arange(256, dtype=np.uint8)
        for old, new in (label_map or {}).items():
            table[old] = new
        results['gt_seg_map'] = table[ids]


class ColorJitter(BaseTransform):
    """Change brightness, contrast and saturation at random, in this order.

    Source: STDC-Seg's training code, with 0.5 for each. Each factor is drawn from
    U(max(0, 1 - v), 1 + v).

    Args:
        brightness: v of the brightness.
        contrast: v of the contrast.
        saturation: v of the saturation.

    Raises:
        ValueError: for a negative value.
    """

    def __init__(self, brightness: float = 0.5, contrast: float = 0.5,
                 saturation: float = 0.5):
        self.strengths = (brightness, contrast, saturation)
        if min(self.strengths) < 0:
            raise ValueError('brightness, contrast and saturation must be >= 0, got '
                             f'{self.strengths}')

    @cache_randomness
    def factors(self) -> Tuple[float, ...]:
        """Draw the three factors of one image."""
        return tuple(np.random.uniform(max(0., 1 - v), 1 + v) for v in self.strengths)

    def transform(self, results: dict) -> dict:
        """Change ``img`` (H, W, 3), uint8 BGR, or raise InputError for another."""
        check_colours(results['img'], type(self).__name__)
        brightness, contrast, saturation = self.factors()
        image = mmcv.adjust_brightness(results['img'], brightness)
        image = mmcv.adjust_contrast(image, contrast)
        results['img'] = mmcv.adjust_color(image, saturation)
        return results

    def __repr__(self) -> str:
        return ('ColorJitter(brightness={}, contrast={}, saturation={})'
                .format(*self.strengths))


def check_colours(image: np.ndarray, name: str) -> None:
    """Raise InputError unless an image is (H, W, 3) uint8, for transform ``name``."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(
            f'{name} changes the colours of (H, W, 3) uint8 images, got '
            f'{image.shape} {image.dtype}; leave it out of the pipeline')


class EnlargeToCrop(BaseTransform):
    """Enlarge an image that is smaller than the crop, so that it is not padded.

    Source: STDC-Seg's training code. The result exceeds the crop by one pixel and
    keeps the aspect ratio. The image is resized bilinearly, labels by nearest
    neighbour.

    Args:
        crop_size: (height, width), pixels.
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
            results[key] = mmcv.imresize(results[key], size, interpolation='nearest')
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'EnlargeToCrop(crop_size={self.crop_size})'
