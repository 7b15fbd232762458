"""Read data with the data sets and loaders of the stack."""
from typing import Optional, Tuple

import cv2
import numpy as np
from PIL import Image

__all__ = [
    'DECODE_ERRORS', 'LOAD_ERRORS', 'build_without_pipeline', 'restore_sides'
]

# What decoders raise for a file that is none, or is cut short.
DECODE_ERRORS = (OSError, SyntaxError, Image.DecompressionBombError, cv2.error)
# mmcv's loader asserts that there is an image.
LOAD_ERRORS = (*DECODE_ERRORS, AssertionError)


def restore_sides(label: np.ndarray,
                  size: Optional[Tuple[int, int]]) -> np.ndarray:
    """Give a label back the sides of one pixel, which MMSegmentation squeezes.

    Args:
        label: class ids, (H, W), or fewer sides.
        size: (H, W) of the file; None where it is not known.
    """
    return label.reshape(size) if size and label.ndim < 2 else label


def build_without_pipeline(config: dict):
    """Build the data set of a config, to look at its samples alone.

    It is not serialized, because MMEngine cannot serialize an empty set.
    """
    from mmseg.registry import DATASETS
    return DATASETS.build({**config, 'pipeline': [], 'serialize_data': False})
