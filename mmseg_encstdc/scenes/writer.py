"""Write the generated demo set to a folder, unless it is there already.

A set is OUT/{images,labels}/{train,val}/NNNN.png and OUT/scenes.json, which says
which set it is and whether every file has been written.
"""
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Dict, List, Optional

import cv2
import numpy as np

from ..errors import InputError, as_input_error
from .classes import CLASSES, IGNORE
from .painter import VERSION, paint_scene

__all__ = ['make_scenes', 'write_split']

RECORD = 'scenes.json'
# Each split owns a range of scene numbers, so that no scene is in two splits.
SPLIT_STARTS = {'train': 0, 'val': 1_000_000, 'test': 2_000_000}
SPLIT_LENGTH = 1_000_000
SPLITS = ('train', 'val')  # of a set


def make_scenes(out: Path, train: int, val: int, seed: int, workers: int = 1,
                overwrite: bool = False) -> bool:
    """Write a set, unless the folder already holds it.

    An unfinished set is written again from the start.

    Args:
        out: folder to write.
        train: number of scenes to train on.
        val: number of scenes to validate on.
        seed: number of the data set.
        workers: number of threads. It does not change the pixels.
        overwrite: replace another set in ``out``.

    Returns:
        Whether anything was written.

    Raises:
        InputError: when ``out`` holds something else or cannot be written, or a
            number is out of its range.
    """
    new = dict(generator=VERSION, seed=seed, train=train, val=val, complete=0)
    with as_input_error(f'{out} cannot be written', (OSError, )):
        old = read_record(out)
        if old is not None:
            if {**old, 'complete': 0} != new and not overwrite:
                held = ', '.join(f'{key} {old[key]}' for key in new
                                 if key != 'complete')
                raise InputError(f'{out} holds another set ({held}); add '
                                 '--overwrite to replace it')
            if old == {**new, 'complete': 1} and all(
                    path.is_file() for path in list_files(out, new)):
                return False
            for path in list_files(out, old):
                path.unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        write_record(out, new)  # an interrupted run leaves a set marked unfinished
        for split in SPLITS:
            write_split(out, split, new[split], seed, workers)
        write_record(out, {**new, 'complete': 1})
    return True


def read_record(out: Path) -> Optional[Dict[str, int]]:
    """Return the record of the set in a folder, or None if there is none.

    Raises:
        InputError: when ``out`` holds anything but a set.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f'{out} is a file; give a folder as OUT')
    path = out / RECORD
    if path.is_file():
        try:
            record = json.loads(path.read_text())
            return {key: int(record[key])
                    for key in ('generator', 'seed', 'train', 'val', 'complete')}
        except (KeyError, TypeError, ValueError):
            raise InputError(f'{path} is damaged; delete {out} and retry') from None
    for part in ('images', 'labels'):
        if (out / part).exists():
            raise InputError(f'{out / part} was not made by this tool; give '
                             'another folder as OUT')
    return None


def write_record(out: Path, record: Dict[str, int]) -> None:
    """Write the record of a set into its folder."""
    (out / RECORD).write_text(json.dumps(record, indent=2) + '\n')


def list_files(out: Path, record: Dict[str, int]) -> List[Path]:
    """Return the paths of all images and labels of a set."""
    return [out / part / split / f'{number:04d}.png'
            for part in ('images', 'labels') for split in SPLITS
            for number in range(record[split])]


def write_split(folder: Path, split: str, count: int, seed: int,
                workers: int = 1) -> List[np.ndarray]:
    """Write ``folder/{images,labels}/split/NNNN.png``, replacing existing files.

    Args:
        folder: root of the data set, made if missing.
        split: 'train', 'val' or 'test'; no scene is in two splits.
        count: number of scenes, 1 to 1,000,000.
        seed: number of the data set, at least 0.
        workers: number of threads. It does not change the pixels.

    Returns:
        One int64 array (len(CLASSES) + 1,) per scene: the number of pixels of every
        class in the order of ``CLASSES``, then of ``IGNORE``.

    Raises:
        InputError: when an argument is out of its range.
        OSError: when a file cannot be written.
    """
    if split not in SPLIT_STARTS:
        raise InputError(f'split must be one of {list(SPLIT_STARTS)}, got {split!r}')
    if not 1 <= count <= SPLIT_LENGTH:
        raise InputError(f'count must be 1 to {SPLIT_LENGTH}, got {count}')
    for name, value, least in (('seed', seed, 0), ('workers', workers, 1)):
        if value < least:
            raise InputError(f'{name} must be at least {least}, got {value}')
    for part in ('images', 'labels'):
        (folder / part / split).mkdir(parents=True, exist_ok=True)
    write = partial(write_scene, folder, split, seed)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(write, range(count)))


def write_scene(folder: Path, split: str, seed: int, number: int) -> np.ndarray:
    """Write one scene of a split; return its pixel counts, (len(CLASSES) + 1,)."""
    image, label = paint_scene(seed, SPLIT_STARTS[split] + number)
    write_png(folder / 'images' / split / f'{number:04d}.png', image[..., ::-1])
    write_png(folder / 'labels' / split / f'{number:04d}.png', label)
    histogram = np.bincount(label.ravel(), minlength=256)  # (256,)
    return np.append(histogram[:len(CLASSES)], histogram[IGNORE])


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 pixels, (H, W) grey or (H, W, 3) BGR, to a PNG file."""
    # imwrite reports a failure only by its result and cannot open every path name
    # on every platform.
    _, data = cv2.imencode('.png', np.ascontiguousarray(pixels))
    path.write_bytes(data.tobytes())
