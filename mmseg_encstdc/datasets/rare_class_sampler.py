"""Draw images with rare classes more often."""
from itertools import islice
from typing import Iterator, Optional

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from ..errors import InputError
from .pair_reader import is_label_loader

__all__ = ['RareClassSampler', 'class_probabilities']


def class_probabilities(frequencies: np.ndarray, temperature: float) -> np.ndarray:
    """Compute the probability with which each class is drawn.

    p_c is proportional to exp((1 - f_c) / T). Source: Hoyer et al., DAFormer, CVPR
    2022, section 3.3.

    Args:
        frequencies: fraction of pixels of each class f_c, (C, ).
        temperature: T > 0; the larger, the more even.

    Returns:
        Probabilities, (C, ); 0 for a class without a pixel.
    """
    weights = np.exp(-frequencies / temperature) * (frequencies > 0)
    return weights / weights.sum()


class RareClassSampler(Sampler):
    """Draw a class, then one of the images that have it, without end.

    All labels are read once, when the sampler is built. Each process takes every n-th
    image of the same sequence.

    Args:
        dataset: whose pipeline loads labels.
        temperature: see :func:`class_probabilities`.
        min_pixels: an image has a class if it has at least that many pixels of it.
        seed: of the sequence; None for one that all processes share.

    Raises:
        InputError: for a data set without such a pipeline, for no labelled pixel, and
            for a temperature or number of pixels that is not positive.
    """

    def __init__(self, dataset: BaseDataset, temperature: float = 0.1,
                 min_pixels: int = 50, seed: Optional[int] = None):
        for name, value in (('temperature', temperature), ('min_pixels', min_pixels)):
            if not value > 0:
                raise InputError(f'RareClassSampler.{name} is {value}; give a number '
                                 'above 0')
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.size = len(dataset)
        pixels = count_classes(dataset)  # (images, C)
        if not pixels.sum():
            raise InputError('RareClassSampler found no labelled pixel in the data set')
        # Images with few pixels of a class count where no image has more.
        limits = np.minimum(min_pixels, pixels.max(0))  # (C, )
        self.images = [np.flatnonzero((column >= limit) & (column > 0))
                       for column, limit in zip(pixels.T, limits)]
        self.probabilities = class_probabilities(
            pixels.sum(0) / pixels.sum(), temperature)

    def _sequence(self) -> Iterator[int]:
        rng = np.random.default_rng(self.seed)
        while True:
            index = rng.choice(len(self.probabilities), p=self.probabilities)
            yield int(rng.choice(self.images[index]))

    def __iter__(self) -> Iterator[int]:
        yield from islice(self._sequence(), self.rank, None, self.world_size)

    def __len__(self) -> int:
        """Return the number of images of the data set, as InfiniteSampler does."""
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Do nothing; the sequence has no end."""


def count_classes(dataset: BaseDataset) -> np.ndarray:
    """Count the pixels of each class in each image of a data set.

    Returns:
        Numbers of pixels, (images, C), int64.

    Raises:
        InputError: for a data set whose pipeline does not load labels.
    """
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    loader = next((t for t in transforms if is_label_loader(type(t))), None)
    classes = dataset.metainfo.get('classes')
    if loader is None or not classes:
        raise InputError(
            'RareClassSampler needs a data set with classes, whose pipeline loads '
            f'labels; {type(dataset).__name__} is none. Use a data set without a '
            'wrapper, or InfiniteSampler')
    counts = np.zeros((len(dataset), len(classes)), np.int64)
    for i, row in enumerate(counts):
        label = torch.from_numpy(loader(dataset.get_data_info(i))['gt_seg_map'])
        found = torch.bincount(label.flatten().long(), minlength=len(classes))
        row[:] = found[:len(classes)].numpy()
    return counts
