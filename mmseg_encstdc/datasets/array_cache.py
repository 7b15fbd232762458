"""Keep decoded images and labels in files that are mapped into memory."""
import hashlib
import os
import os.path as osp
from contextlib import suppress
from typing import Callable, Optional

import numpy as np

from ..errors import InputError

__all__ = ['cached_array']


def cached_array(folder: str, paths: tuple, settings: str,
                 load: Callable[[], Optional[np.ndarray]]) -> Optional[np.ndarray]:
    """Return what ``load`` gives, from a file of an earlier call if there is one.

    The file is mapped into memory, so that data workers share it; a change of the array
    stays in the process. It is written whole or not at all. It is not used again if a
    path, its size or the time of its last change is another, or the settings are. Files
    that are not on a local disk are loaded each time.

    Args:
        folder: of the cache.
        paths: files that ``load`` reads; None among them is left out.
        settings: all else that its result depends on.
        load: returns an array, or None, which is not kept.

    Raises:
        InputError: when the cache cannot be written.
    """
    paths = [path for path in paths if path]
    if not all(map(osp.isfile, paths)):
        return load()
    states = [(osp.abspath(path), os.stat(path).st_size, os.stat(path).st_mtime_ns)
              for path in paths]
    key = hashlib.sha1(repr((states, settings)).encode()).hexdigest()
    file = osp.join(folder, key[:2], f'{key}.npy')
    with suppress(OSError, ValueError):  # not there, or damaged
        return np.asarray(np.load(file, mmap_mode='c'))
    array = load()
    if array is not None:
        _write(file, array)
    return array


def _write(file: str, array: np.ndarray) -> None:
    unfinished = f'{file}.{os.getpid()}'
    try:
        os.makedirs(osp.dirname(file), exist_ok=True)
        with open(unfinished, 'wb') as stream:
            np.save(stream, array)
        os.replace(unfinished, file)
    except OSError as error:
        with suppress(OSError):
            os.remove(unfinished)
        raise InputError(f'the cache {file} cannot be written: '
                         f'{error.strerror or error}; free some space, or leave '
                         'cache_dir out of the loaders') from error
