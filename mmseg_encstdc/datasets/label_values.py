"""Map the ids in label files to class ids."""
from collections import Counter
from typing import Dict

import numpy as np
from PIL import Image

from ..errors import InputError
from .sample_checks import SampleError

__all__ = ['LabelValues', 'count_values']

IDS = 256
UNNAMED = -1


class LabelValues:
    """Map each id in a label file to a class id.

    Args:
        values: class id, or ``ignore_index``, of each id in the files. All are 0 to
            255.
        ignore_index: id of ignored pixels. Only the message names it.

    Raises:
        InputError: for an id that is not 0 to 255, or an empty map.
    """

    def __init__(self, values: Dict[int, int], ignore_index: int = 255):
        self.table = np.full(IDS, UNNAMED, np.int16)
        self.ignore_index = ignore_index
        if not isinstance(values, dict) or not values:
            raise _invalid(values)
        for pair in values.items():
            try:  # the keys of a JSON config are strings
                raw, class_id = (int(value) for value in pair)
            except (TypeError, ValueError):
                raise _invalid(values) from None
            if not (0 <= raw < IDS and 0 <= class_id < IDS):
                raise _invalid(values)
            self.table[raw] = class_id

    def __call__(self, label: np.ndarray, path: str) -> np.ndarray:
        """Return the class ids of a label.

        Args:
            label: ids in the file, (H, W), uint8.
            path: the file, for the message.

        Raises:
            InputError: naming the ids that are not in the map.
        """
        classes = self.table[label]
        unnamed = sorted(count_values(label[classes == UNNAMED]))
        if unnamed:
            raise SampleError(
                f'label {path} holds the values {", ".join(map(str, unnamed[:10]))}, '
                'which LoadSegAnnotations(values=...) does not name; add them, with '
                f'{self.ignore_index} for pixels to ignore',
                'labels with values outside the map')
        return classes.astype(np.uint8)


def count_values(label: np.ndarray) -> Counter:
    """Count the pixels of each distinct id of an integer array."""
    if label.dtype == np.uint8 and label.ndim == 2:
        # Three times as fast as bincount, which widens each id to 8 bytes.
        pixels = Image.fromarray(label).histogram()
        return Counter({value: count for value, count in enumerate(pixels) if count})
    values, pixels = np.unique(label, return_counts=True)
    return Counter(dict(zip(values.tolist(), pixels.tolist())))


def _invalid(values: object) -> InputError:
    return InputError(
        'LoadSegAnnotations(values=...) maps ids of the files to class ids, both 0 to '
        f'255, such as {{0: 0, 255: 1}}; got {values}')
