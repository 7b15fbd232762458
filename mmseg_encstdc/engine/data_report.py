"""Read every file of a data loader, in parallel, and report what is there."""
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import cv2
from mmengine.config import Config
from PIL import Image

from ..compat.data import DECODE_ERRORS
from ..datasets.label_counts import LabelCounts
from ..datasets.pair_reader import Pair, PairReader
from ..datasets.sample_checks import SampleError, check_pairs_exist
from ..datasets.stray_files import find_strays
from ..errors import InputError
from .checks.classes import class_fault
from .checks.data import list_samples, reader_of
from .configs import datasets_of

__all__ = ['LoaderReport', 'read_loader']

# Samples that a process takes at once.
CHUNK = 4


class Reading(NamedTuple):
    """Hold what one sample showed.

    Attributes:
        pair: sizes and ids; None if the sample is faulty.
        mode: of the image's pixels, as Pillow names it.
        fault: of the sample.
    """

    pair: Optional[Pair]
    mode: Optional[str] = None
    fault: Optional[SampleError] = None


class LoaderReport:
    """Collect what the data sets of a loader hold.

    Attributes:
        loader: key of the data loader.
        types: of its data sets.
        classes: names of the classes; None where they are not known.
        paths: of the images.
        sizes: number of images by (height, width), pixels.
        modes: number of images by mode of their pixels.
        class_images: number of images of each class id, for a classifier.
        counts: of the labels.
        faults: messages by kind of fault.
        warnings: one line each.
    """

    def __init__(self, loader: str):
        self.loader = loader
        self.types, self.paths, self.warnings = [], [], []
        self.classes = None
        self.sizes, self.modes, self.class_images = Counter(), Counter(), Counter()
        self.counts = LabelCounts()
        self.faults = {}

    def add(self, reading: Reading) -> None:
        """Count one sample."""
        self.modes.update([reading.mode] if reading.mode else [])
        if reading.fault is not None:
            self.add_fault(reading.fault.kind, str(reading.fault))
        else:
            self.sizes.update([reading.pair.size] if reading.pair.size else [])
            self.counts.add(reading.pair)

    def add_fault(self, kind: str, message: str) -> None:
        """Note a fault."""
        self.faults.setdefault(kind, []).append(message)

    def lines(self) -> List[str]:
        """Return one line for each kind of fault: its number and the first one."""
        found = [messages[0] if len(messages) == 1 else
                 f'{len(messages)} {kind}, the first: {messages[0]}'
                 for kind, messages in self.faults.items()]
        return [line if line.startswith(self.loader) else f'{self.loader}: {line}'
                for line in found]

    def shares(self) -> List[Tuple[str, float]]:
        """Return the share of each class, and of ignored pixels, 0 to 1."""
        counts = self.class_images or self.counts.classes
        names = dict(enumerate(self.classes or sorted(counts)))
        if self.classes is None:
            names = {value: str(value) for value in sorted(counts)}
        total = max(sum(counts.values()), 1)
        shares = [(name, counts[value] / total) for value, name in names.items()]
        if self.class_images:
            return shares
        ignored = sum(counts[value] for value in self.counts.ignored
                      if value not in names)
        return [*shares, ('ignored', ignored / total)]

    def as_dict(self) -> dict:
        """Return the report for JSON."""
        return dict(
            datasets=self.types, images=len(self.paths), labels=self.counts.total,
            labels_read=self.counts.read,
            sizes={f'{width} x {height}': count
                   for (height, width), count in sorted(self.sizes.items())},
            modes=dict(sorted(self.modes.items())),
            label_values={str(k): v for k, v in sorted(self.counts.raw.items())},
            class_shares=dict(self.shares()),
            faults=[dict(kind=kind, count=len(messages), first=messages[0])
                    for kind, messages in self.faults.items()],
            warnings=self.warnings)


def read_loader(cfg: Config, loader: str, workers: int,
                track: Callable[[Iterable, str, int], Iterable]) -> LoaderReport:
    """Read every file of a data loader.

    Args:
        cfg: a whole experiment.
        loader: key of the data loader.
        workers: number of processes; 1 reads in this one.
        track: shows progress; takes (steps, description, number of steps).

    Raises:
        InputError: when a data set cannot be built, or its reader.
    """
    report = LoaderReport(loader)
    for config in datasets_of(cfg[loader].dataset):
        dataset, samples = list_samples(cfg, config, loader)
        name = type(dataset).__name__
        report.types.append(name)
        report.classes = dataset.metainfo.get('classes') or report.classes
        report.paths += [sample['img_path'] for sample in samples]
        strays = find_strays(dataset, samples)
        report.warnings += [f'{name}: {line}' for line in strays.warnings]
        for line in strays.errors:
            report.add_fault('stray files', f'{name}: {line}')
        reader = reader_of(cfg, config, dataset)
        samples = reader.needed(samples)
        report.counts.add_set(reader, samples)
        present = list(_present(report, name, samples, reader.local))
        for reading in track(_read_all(reader, present, workers), name, len(present)):
            report.add(reading)
        report.class_images.update(
            sample['gt_label'] for sample in present if 'gt_label' in sample)
    fault = class_fault(cfg, loader, report.counts, report.classes)
    if isinstance(fault, InputError):
        report.add_fault('class faults', str(fault))
    elif fault is not None:
        report.warnings.append(str(fault))
    return report


def _present(report: LoaderReport, name: str, samples: List[dict],
             local: bool) -> Iterator[dict]:
    """Yield the samples whose files exist, and note the others."""
    if not samples:
        try:
            check_pairs_exist(name, [])
        except InputError as error:
            report.add_fault('empty data sets', str(error))
    for sample in samples:
        try:
            check_pairs_exist(name, [sample], local)
        except SampleError as error:
            report.add_fault(error.kind, str(error))
        else:
            yield sample


def _read_all(reader: PairReader, samples: List[dict],
              workers: int) -> Iterator[Reading]:
    """Yield what each sample shows, in order.

    Raises:
        InputError: when a process is killed.
    """
    workers = min(workers, -(-len(samples) // CHUNK))
    if workers < 2:
        yield from map(partial(_read_one, reader), samples)
        return
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(reader, ))
    try:
        yield from pool.map(_read_here, samples, chunksize=CHUNK)
    except BrokenProcessPool as error:
        raise InputError('a process that read files was killed, perhaps for want of '
                         'memory; lower --workers') from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read_one(reader: PairReader, sample: dict) -> Reading:
    """Read a sample; a fault becomes part of the result."""
    try:
        return Reading(reader.read(sample), _mode_of(sample['img_path']))
    except SampleError as error:
        return Reading(None, _mode_of(sample['img_path']), error)
    except InputError as error:
        return Reading(None, _mode_of(sample['img_path']), SampleError(str(error)))


def _mode_of(path: str) -> Optional[str]:
    """Return Pillow's name of an image's pixels; None for a file it cannot read."""
    if not os.path.isfile(path):
        return None
    try:
        with Image.open(path) as file:
            return file.mode
    except DECODE_ERRORS:
        return None


def _start(reader: PairReader) -> None:
    """Prepare a process of the pool."""
    global _reader
    _reader = reader
    cv2.setNumThreads(1)


def _read_here(sample: dict) -> Reading:
    return _read_one(_reader, sample)
