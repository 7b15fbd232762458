"""Read data with the data sets and loaders of the stack."""
import os
from typing import Optional, Tuple

import cv2
import numpy as np
from mmengine.dataset import BaseDataset
from PIL import Image

from ..errors import InputError

__all__ = [
    'DECODE_ERRORS', 'LOAD_ERRORS', 'PIXEL_LIMIT', 'build_without_pipeline',
    'metainfo_without_files', 'pixel_limit', 'restore_sides'
]

# Exceptions of decoders for a file that is no image, or is truncated.
DECODE_ERRORS = (OSError, SyntaxError, Image.DecompressionBombError, cv2.error)
# mmcv's loader asserts that there is an image.
LOAD_ERRORS = (*DECODE_ERRORS, AssertionError)
PIXEL_LIMIT = 'MMSEG_ENCSTDC_MAX_PIXELS'
LARGEST = 2**29  # pixels; 1.6 GB as 8-bit colours


def pixel_limit() -> int:
    """Return the largest number of pixels of a picture: 2^29, or the user's number.

    Pillow, which reads labels, has a smaller limit of its own; a larger one of the user
    is passed on.

    Raises:
        InputError: when the environment variable is no positive number.
    """
    text = os.environ.get(PIXEL_LIMIT)
    if text is None:
        return LARGEST
    if not text.isdecimal() or int(text) == 0:
        raise InputError(f'{PIXEL_LIMIT} is {text!r}; give a number of pixels, 1 or '
                         'more')
    if int(text) > 2 * (Image.MAX_IMAGE_PIXELS or LARGEST):
        Image.MAX_IMAGE_PIXELS = -(-int(text) // 2)
    return int(text)


def restore_sides(label: np.ndarray,
                  size: Optional[Tuple[int, int]]) -> np.ndarray:
    """Restore a height or width of 1, which MMSegmentation's ``squeeze`` removes.

    Args:
        label: class ids, (H, W), or without its dimensions of size 1.
        size: (H, W) of the file; None where it is not known.
    """
    return label.reshape(size) if size and label.ndim < 2 else label


def build_without_pipeline(config: dict) -> BaseDataset:
    """Build a data set that lists its samples and loads none.

    It is not serialized, because MMEngine cannot serialize an empty data set.
    """
    from mmseg.registry import DATASETS
    return DATASETS.build({**config, 'pipeline': [], 'serialize_data': False})


def metainfo_without_files(config: dict) -> dict:
    """Return the metainfo of a data set, whose files need not exist."""
    from mmseg.registry import DATASETS
    return DATASETS.build({**config, 'pipeline': [], 'lazy_init': True}).metainfo
