"""Translate class ids into the ids of a data set's label files."""
import numpy as np

from ..errors import InputError

__all__ = ['raw_ids']


def raw_ids(metainfo: dict) -> np.ndarray:
    """Return the id in the label files of each class, (C, ) uint8.

    It undoes what MMSegmentation does when it loads a label: ``reduce_zero_label``,
    which subtracts 1, and then the label map.

    Args:
        metainfo: of MMSegmentation's data set: ``classes``, ``label_map`` (id of the
            files, reduced -> class id) and ``reduce_zero_label``.

    Raises:
        InputError: when several ids of the files are one class.
    """
    label_map = metainfo.get('label_map') or {}
    table = []
    for i, name in enumerate(metainfo['classes']):
        found = [old for old, new in label_map.items() if new == i] or [i]
        if len(found) > 1:
            raise InputError(
                f'--raw-ids: the label files have the ids {", ".join(map(str, found))} '
                f'for {name}; write class ids, without --raw-ids')
        table.append(found[0] + bool(metainfo.get('reduce_zero_label')))
    if max(table) > 255:
        raise InputError(f'--raw-ids: the id {max(table)} does not fit an 8-bit file')
    return np.array(table, np.uint8)
