"""Translate class ids into the ids of a data set's label files."""
from typing import Dict, Optional

import numpy as np

from ..errors import InputError

__all__ = ['raw_ids']


def raw_ids(metainfo: dict,
            values: Optional[Dict[int, int]] = None) -> np.ndarray:
    """Return the id in the label files of each class, (C, ) uint8.

    It undoes what a loader does to a label: ``values``, or ``reduce_zero_label``, which
    subtracts 1; and then the label map.

    Args:
        metainfo: of MMSegmentation's data set: ``classes``, ``label_map`` (id of the
            files, reduced -> class id) and ``reduce_zero_label``.
        values: of LoadSegAnnotations.

    Raises:
        InputError: when several ids of the files are one class, or none is.
    """
    label_map = metainfo.get('label_map') or {}
    table = []
    for i, name in enumerate(metainfo['classes']):
        found = [old for old, new in label_map.items() if new == i] or [i]
        if values is None:
            found = [old + bool(metainfo.get('reduce_zero_label')) for old in found]
        else:
            found = [int(old) for old, new in values.items() if int(new) in found]
        if len(found) != 1:
            shown = ', '.join(map(str, found)) or 'none'
            raise InputError(
                f'--raw-ids: ids of the label files for {name}: {shown}; it needs one '
                'id for each class, so write class ids, without --raw-ids')
        table.append(found[0])
    if max(table) > 255:
        raise InputError(f'--raw-ids: the id {max(table)} does not fit an 8-bit file')
    return np.array(table, np.uint8)
