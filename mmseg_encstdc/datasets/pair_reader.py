"""Read images and labels as the pipeline of a config reads them."""
import copy
from collections import Counter
from contextlib import contextmanager
from typing import Callable, Collection, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmseg.datasets.transforms import LoadAnnotations as LoadSegMap
from mmseg.registry import TRANSFORMS

from ..errors import InputError, as_input_error
from .image_checks import image_loader
from .label_values import count_values
from .sample_checks import (
    check_image,
    check_label_ids,
    check_label_shape,
    check_size,
    check_wide_ids,
    is_local,
    unreadable,
)
from .transforms import LoadSegAnnotations, LoadSegImage

__all__ = ['Pair', 'PairReader']

# Exceptions of a registry for a name of another package.
SCOPE_ERRORS = (AssertionError, ImportError, KeyError, TypeError, ValueError)
PACKAGES = ('mmcv.', 'mmseg.', 'mmseg_encstdc.')
STANDARD = dict(color_type='color', file_client_args=None, backend_args=None,
                ignore_empty=False)
# Backends that decode common 8-bit images alike.
STANDARD_BACKENDS = ('cv2', 'pillow')


class Pair(NamedTuple):
    """Hold what was read of a sample.

    Attributes:
        size: (height, width) of the image, pixels; None where it is not known.
        raw: number of pixels of each id in the label file; None without a label.
        classes: the same of each class id after loading.
    """

    size: Optional[Tuple[int, int]]
    raw: Optional[Counter] = None
    classes: Optional[Counter] = None


class PairReader:
    """Read the samples of a data set with the loaders of its pipeline.

    The loaders are the transforms whose class is, or is named as, a loader. A transform
    of another package directly after a loader belongs to loading, because it may map
    labels. Where the image loader is mmcv's with its defaults, common 8-bit images are
    decoded with Pillow instead, which finds truncated files.

    Args:
        dataset: built without its pipeline.
        pipeline: configs of its transforms. Without an image loader, the plugin's
            loaders are used.
        ignored: ids of ignored pixels, for a label loader without ``ignore_index``.

    Raises:
        InputError: when a loader cannot be built, or disagrees with the data set on
            ``reduce_zero_label``.
    """

    def __init__(self, dataset: BaseDataset, pipeline: List[dict],
                 ignored: Collection[int] = (255, )):
        classes = dataset.metainfo.get('classes')
        self.num_classes = len(classes) if classes else None
        self.steps = [_build(config) for config in find_loaders(pipeline)]
        if not any(not is_label_loader(type(step)) for step in self.steps):
            self.steps = [LoadSegImage(), LoadSegAnnotations()]
        self.label_loader = next(
            (step for step in self.steps if is_label_loader(type(step))), None)
        self.ignored = set(ignored)
        if isinstance(self.label_loader, LoadSegAnnotations):
            self.ignored = {self.label_loader.ignore_index}
        # A transform of another package may change the classes later, or crop.
        self.exact = not any(is_foreign(_class_of(step)) for step in pipeline)
        self._check_zero_label(dataset)
        self.local = not any(getattr(part, 'backend_args', None)
                             for part in (dataset, *self.steps))
        self.reduces_zero = bool(getattr(dataset, 'reduce_zero_label', False))

    def needed(self, samples: List[dict]) -> List[dict]:
        """Return samples without the labels that the pipeline does not load."""
        if self.label_loader is not None:
            return samples
        return [{**sample, 'seg_map_path': None} for sample in samples]

    def read(self, sample: dict) -> Pair:
        """Read a sample and compare its sizes and ids.

        Raises:
            InputError: naming the file.
        """
        results = copy.deepcopy(sample)
        raw = None
        for step in self.steps:
            with _naming_file(sample, step):
                if is_label_loader(type(step)):
                    if sample.get('seg_map_path') is None:
                        break
                    raw = self._read_raw(step, sample)
                size = self._decode(step, sample)
                if size:
                    results['ori_shape'] = size
                else:
                    results = step(results)
            if results is None:  # the loader leaves this sample out
                return Pair(None)
        return self._compare(sample, results, raw)

    def _compare(self, sample: dict, results: dict, raw: Optional[Counter]) -> Pair:
        """Check sizes and ids after loading.

        Args:
            sample: before loading.
            results: after loading.
            raw: number of pixels of each id in the file; None where loading keeps them.
        """
        image, label = results.get('img'), results.get('gt_seg_map')
        size = image.shape[:2] if isinstance(image, np.ndarray) else results.get(
            'ori_shape')
        if isinstance(self.label_loader, LoadSegMap) and label is not None:
            check_label_shape(sample['seg_map_path'], label.shape)
        elif not _is_label_map(label):
            return Pair(size)
        if size is not None:
            check_size(sample['img_path'], size, sample['seg_map_path'], label.shape)
        classes = count_values(label)
        if self.num_classes is not None and self.exact:
            check_label_ids(sample['seg_map_path'], classes, self.num_classes,
                            self.ignored)
        return Pair(size, classes if raw is None else raw, classes)

    def _read_raw(self, loader: Callable, sample: dict) -> Optional[Counter]:
        """Count the ids in the file; return None where loading keeps them.

        Raises:
            InputError: for ids above 255, which MMSegmentation takes modulo 256.
        """
        if not isinstance(loader, LoadSegMap):
            return None
        if not isinstance(loader, LoadSegAnnotations):
            check_wide_ids(sample['seg_map_path'])
        if not (sample.get('label_map') or sample.get('reduce_zero_label')
                or getattr(loader, 'values', None)):
            return None
        plain = copy.copy(loader)
        plain.reduce_zero_label, plain.values, plain.num_classes = False, None, None
        return count_values(plain({
            **sample, 'label_map': None, 'reduce_zero_label': False,
            'seg_fields': []})['gt_seg_map'])

    def _decode(self, step: Callable, sample: dict) -> Optional[Tuple[int, int]]:
        """Return the (height, width) of an image that mmcv's default loader reads.

        None where the loader itself must read it.
        """
        images = [one for one in self.steps if not is_label_loader(type(one))]
        standard = (type(step) in (LoadImageFromFile, LoadSegImage) and len(images) == 1
                    and step.imdecode_backend in STANDARD_BACKENDS
                    and not getattr(step, 'reads_bands', False)
                    and all(getattr(step, key) == value
                            for key, value in STANDARD.items()))
        local = is_local(sample['img_path'])
        return check_image(sample['img_path']) if standard and local else None

    def _check_zero_label(self, dataset: BaseDataset) -> None:
        """Raise InputError where MMSegmentation's loader would assert."""
        own = getattr(self.label_loader, 'reduce_zero_label', None)
        expected = getattr(dataset, 'reduce_zero_label', None)
        if None not in (own, expected) and own != expected:
            raise InputError(
                f'reduce_zero_label is {own} in {type(self.label_loader).__name__} and '
                f'{expected} in {type(dataset).__name__}; set it in the data set alone')


def find_loaders(pipeline: List[dict]) -> Iterator[dict]:
    """Yield the configs of the transforms that load, also in nested transforms."""
    loading = False
    for config in pipeline:
        if not isinstance(config, dict):  # a list of TestTimeAug
            yield from find_loaders(config)
            continue
        cls = _class_of(config)
        loading = cls is not None and (
            is_loader(cls) or loading and is_foreign(cls))
        if loading:
            yield config
        elif 'transforms' in config:
            yield from find_loaders(config['transforms'])


def is_loader(cls: type) -> bool:
    """Return whether a transform loads an image or a label."""
    return cls.__name__.startswith('Load') or issubclass(
        cls, (LoadImageFromFile, LoadAnnotations))


def is_label_loader(cls: type) -> bool:
    """Return whether a transform loads a label."""
    return issubclass(cls, LoadAnnotations) or is_loader(cls) and any(
        word in cls.__name__ for word in ('Annotation', 'Label', 'SegMap', 'Mask'))


def is_foreign(cls: Optional[type]) -> bool:
    """Return whether a transform is no loader and of another package."""
    return cls is not None and not is_loader(cls) and not (
        f'{cls.__module__}.'.startswith(PACKAGES))


def _is_label_map(label: object) -> bool:
    """Return whether the result of a custom loader has one id a pixel."""
    return (isinstance(label, np.ndarray) and label.ndim == 2
            and label.dtype.kind in 'bui')


def _class_of(config: dict) -> Optional[type]:
    """Return the class of a transform's config; None where it is not registered."""
    kind = config.get('type') if isinstance(config, dict) else None
    if isinstance(kind, str):
        with as_input_error(f'transform {kind}', SCOPE_ERRORS):
            kind = TRANSFORMS.get(kind)
    return kind if isinstance(kind, type) else None


@contextmanager
def _naming_file(sample: dict, step: Callable) -> Iterator[None]:
    """Turn any exception of a loader into an InputError that names the file."""
    kind, key = ('label', 'seg_map_path') if is_label_loader(type(step)) else (
        'image', 'img_path')
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of any library that a custom loader calls
        raise unreadable(kind, sample.get(key), error,
                         by=type(step).__name__) from error


def _build(config: dict) -> Callable:
    if _class_of(config) is LoadImageFromFile:  # rejects what mmcv's would change
        return image_loader([config])
    name = f'transform {_class_of(config).__name__} of the pipeline'
    with as_input_error(name, (Exception, )):  # a user's class may raise any
        return TRANSFORMS.build(config)
