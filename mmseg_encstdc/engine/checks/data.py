"""Check the files of the data loaders before the runner is built."""
from itertools import combinations, zip_longest
from typing import Dict, List, Optional, Tuple

from mmengine.config import Config
from mmengine.dataset import BaseDataset

from ... import compat
from ...compat.data import build_without_pipeline
from ...datasets.label_counts import LabelCounts
from ...datasets.pair_reader import PairReader
from ...datasets.sample_checks import SampleError, check_pairs_exist
from ...datasets.stray_files import find_strays
from ...errors import InputError
from ..bad_images import bad_images_allowed
from ..config_errors import naming
from ..configs import classes_of, datasets_of
from .classes import (
    check_class_file,
    check_metainfo,
    check_same_ids,
    class_fault,
    ignored_ids,
)
from .parts import check_class_count

__all__ = ['check_data', 'list_samples', 'reader_of', 'shared_images']

# Images decoded with their labels, spread evenly over a data set; a disk reads them
# in a few seconds.
SAMPLE = 500


def check_data(cfg: Config, loaders: List[str], world_size: int = 1) -> None:
    """Look for missing files, and decode up to 500 images of each data set.

    They are read with the loaders of each pipeline. Classes that do not occur in the
    labels, stray files and images in both training and evaluation are reported. Classes
    that follow from the folders of a data set are known here only, so they are compared
    with the model and between data sets, as ids follow their order.

    Args:
        cfg: a whole experiment.
        loaders: keys of the data loaders that will be used.
        world_size: number of processes.

    Raises:
        InputError: naming the file or key at fault, or a batch size above the
            number of images.
    """
    found, images = [], {}
    for loader in loaders:
        counts, paths = LabelCounts(), []
        allowed = bad_images_allowed(cfg) if loader == 'train_dataloader' else 0
        for config in datasets_of(cfg[loader].dataset):
            dataset, samples = list_samples(cfg, config, loader)
            allowed = _check_files(cfg, config, dataset, samples, counts, allowed)
            paths += [sample['img_path'] for sample in samples]
            classes = dataset.metainfo.get('classes')
            if classes:
                found.append((loader, classes))
                if not classes_of(config):
                    check_class_count(cfg.model, config['type'], classes, loader)
                    _check_same(*found[0], loader, classes)
                check_same_ids(*found[0], loader, classes)
        images[loader] = set(paths)
        _report(class_fault(cfg, loader, counts, classes))
        _check_epoch(cfg[loader], loader, len(paths) // world_size)
    for line in shared_images(images):
        compat.warn(line)


def list_samples(cfg: Config, config: dict,
                 loader: str) -> Tuple[BaseDataset, List[dict]]:
    """Build a data set without its pipeline and list its samples.

    Args:
        cfg: a whole experiment.
        config: of the data set.
        loader: key of its data loader, for messages.

    Raises:
        InputError: when it cannot be built, or does not read a part of its metainfo.
    """
    key = f'{loader}.dataset'
    check_class_file(config, key)
    with naming(cfg, key):
        dataset = build_without_pipeline(config)
        check_metainfo(config, dataset, key)
        dataset.full_init()
        return dataset, dataset.data_list  # get_data_info copies every label map


def reader_of(cfg: Config, config: dict, dataset: BaseDataset) -> PairReader:
    """Return the reader of a data set's pipeline in an experiment.

    Args:
        cfg: a whole experiment.
        config: of the data set.
        dataset: built from it.
    """
    ignored = ignored_ids(cfg) | {getattr(dataset, 'ignore_index', 255)}
    return PairReader(dataset, config.get('pipeline') or [], ignored)


def shared_images(images: Dict[str, set]) -> List[str]:
    """Return one line for each loader that shares images with training.

    Args:
        images: paths of the images, by key of the data loader.
    """
    lines = []
    for first, other in combinations(images, 2):
        shared = images[first] & images[other]
        if shared and first == 'train_dataloader':
            lines.append(f'{other} has {len(shared)} images of {first}, the first '
                         f'{min(shared)}; results on them say nothing about new images')
    return lines


def _report(fault: Optional[Exception]) -> None:
    """Raise an InputError, or print a warning."""
    if isinstance(fault, InputError):
        raise fault
    if fault is not None:
        compat.warn(str(fault))


def _check_files(cfg: Config, config: dict, dataset: BaseDataset, samples: List[dict],
                 counts: LabelCounts, allowed: int) -> int:
    """Check that all files exist, decode some, and count their labels.

    Args:
        cfg: a whole experiment.
        config: of the data set.
        dataset: built from it.
        samples: of it.
        counts: to add labels to.
        allowed: number of samples that may have a fault.

    Returns:
        The number of samples that may still have one.
    """
    name = type(dataset).__name__
    strays = find_strays(dataset, samples)
    for line in strays.errors:
        raise InputError(f'{name}: {line}')
    for line in strays.warnings:
        compat.warn(f'{name}: {line}')
    reader = reader_of(cfg, config, dataset)
    samples = reader.needed(samples)
    if not allowed or not samples:
        check_pairs_exist(name, samples, reader.local)
    counts.add_set(reader, samples)
    for sample in samples[::-(-len(samples) // SAMPLE)]:
        try:
            check_pairs_exist(name, [sample], reader.local)
            counts.add(reader.read(sample))
        except SampleError as error:
            if not allowed:
                raise
            allowed -= 1
            compat.warn(f'left out of training: {error}')
    return allowed


def _check_same(first: str, expected: tuple, loader: str,
                classes: tuple) -> None:
    """Raise InputError unless two loaders have the same classes in one order."""
    for i, (one, other) in enumerate(zip_longest(expected, classes)):
        if one != other:
            raise InputError(
                f'class {i} is {one} in {first} and {other} in {loader}; give '
                'both the same class folders, or the same metainfo.classes')


def _check_epoch(loader: dict, name: str, images: int) -> None:
    """Raise InputError if an epoch without its incomplete batch would be empty."""
    endless = loader.get('sampler', {}).get('type') == 'InfiniteSampler'
    batch = loader.get('batch_size', 1)
    if loader.get('drop_last') and not endless and images < batch:
        raise InputError(
            f'{name}.batch_size is {batch}, but each process has {images} '
            'images, and an incomplete batch is dropped; lower batch_size')
