"""Look at the pixels of an image file without decoding them."""
import io
import os
import re
import struct
import warnings
from typing import BinaryIO, Dict, Iterator, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image, TiffImagePlugin

from ..compat.data import DECODE_ERRORS

__all__ = [
    'AS_STORED', 'BLACK_IS_ZERO', 'RGB', 'SEPARATED', 'WHITE_IS_ZERO', 'PixelFormat',
    'count_pixels', 'is_tiff', 'label_orientation', 'orientation_of', 'pixel_format',
    'turn'
]

TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the last two are BigTIFF
PNG = b'\x89PNG\r\n\x1a\n'
PNG_BANDS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; 3 is a palette
# Tags of TIFF, by the names of its specification.
ORIENTATION = 274
TAGS = dict(NewSubfileType=254, ImageWidth=256, ImageLength=257, BitsPerSample=258,
            PhotometricInterpretation=262, Orientation=ORIENTATION,
            SamplesPerPixel=277, ExtraSamples=338, SampleFormat=339)
# PhotometricInterpretation: 0 is grey with black as the largest value.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, SEPARATED = 0, 1, 2, 5
AS_STORED = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, SEPARATED)
KINDS = {1: 'uint', 2: 'int', 3: 'float'}  # of SampleFormat
PILLOW_DTYPES = {'I;16': 'uint16', 'I;16B': 'uint16', 'I;16L': 'uint16',
                 'I': 'int32', 'F': 'float32'}
# Exceptions of the parsers of headers for a damaged file, and those of the decoders.
HEADER_ERRORS = (*DECODE_ERRORS, struct.error, KeyError, ValueError, TypeError,
                 IndexError, OverflowError, MemoryError)


class PixelFormat(NamedTuple):
    """Describe the pixels of a file.

    Attributes:
        bands: number of bands, with alpha. A palette has 3. Pages of one band and one
            size in a TIFF are bands.
        dtype: NumPy's name of their type; uint8 for 1 to 8 bits.
        alpha: whether the last band is an alpha channel.
        pages: number of pages that are bands, else 1.
        photometric: PhotometricInterpretation of a TIFF, else None.
        orientation: of a TIFF, 1 to 8 as in EXIF, else 1.
    """
    bands: int
    dtype: str
    alpha: bool = False
    pages: int = 1
    photometric: Optional[int] = None
    orientation: int = 1


def is_tiff(content: bytes) -> bool:
    """Return whether bytes begin as a TIFF file does."""
    return content[:4] in TIFF


def pixel_format(file: BinaryIO) -> Optional[PixelFormat]:
    """Return the format of the pixels in a file, open at its beginning.

    Returns:
        None for a format that Pillow does not know, and for a damaged header.
    """
    head = file.read(26)
    file.seek(0)
    try:
        if is_tiff(head):
            return _tiff_format(file)
        if head.startswith(PNG):
            return PixelFormat(PNG_BANDS[head[25]],
                               'uint16' if head[24] == 16 else 'uint8',
                               alpha=head[25] in (4, 6))
        with Image.open(file) as image:
            bands = image.getbands()
            bands = 3 if image.mode in ('P', 'CMYK') else len(bands)
            return PixelFormat(bands, PILLOW_DTYPES.get(image.mode, 'uint8'),
                               alpha='A' in image.getbands())
    except HEADER_ERRORS:
        return None


def count_pixels(file: BinaryIO) -> Optional[int]:
    """Return height times width by the header of a file, open at its beginning.

    Returns:
        None for a format that Pillow does not know, and for a damaged header.
    """
    try:
        if is_tiff(file.read(4)):
            file.seek(0)
            first = next(_tiff_pages(file))
            return first['ImageWidth'] * first['ImageLength']
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with Image.open(file) as image:
                return image.size[0] * image.size[1]
    except Image.DecompressionBombError as error:
        return int(re.search(r'\((\d+) pixels\)', str(error))[1])
    except (*HEADER_ERRORS, StopIteration):
        return None


def _tiff_format(file: BinaryIO) -> PixelFormat:
    """Return the format of a TIFF's first page, or of its pages that are bands."""
    pages = _tiff_pages(file)
    first = next(pages)
    width, height, samples = (first[key] for key in (
        'ImageWidth', 'ImageLength', 'SamplesPerPixel'))
    bits, photometric = first['BitsPerSample'], first['PhotometricInterpretation']
    dtype = KINDS.get(first['SampleFormat'], 'void') + str(bits)
    count = 1
    if samples == 1:
        for page in pages:
            if (page['NewSubfileType'] & 1 or page['SamplesPerPixel'] > 1
                    or (page['ImageWidth'], page['ImageLength']) != (width, height)):
                break
            count += 1
    bands = samples if photometric in AS_STORED else 3
    return PixelFormat(
        count if count > 1 else bands, 'uint8' if bits < 8 else dtype,
        alpha=first['ExtraSamples'] in (1, 2), pages=count, photometric=photometric,
        orientation=first['Orientation'])


def _tiff_pages(file: BinaryIO) -> Iterator[Dict[str, int]]:
    """Yield the first value of each of ``TAGS``, page by page."""
    header = file.read(8)
    if 43 in header[2:4]:
        header += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    seen = set()
    while tags.next and tags.next not in seen:
        seen.add(tags.next)
        file.seek(tags.next)
        tags.load(file)
        found = {}
        for name, number in TAGS.items():
            default = dict(NewSubfileType=0, PhotometricInterpretation=1,
                           ExtraSamples=-1).get(name, 1)
            value = tags.get(number, default)
            found[name] = value[-1] if isinstance(value, tuple) else value
        yield found


def orientation_of(content: bytes) -> int:
    """Return the orientation of an image file, 1 to 8; 1 where it has none.

    Source: EXIF, tag 274.
    """
    if is_tiff(content):  # Pillow logs an error for many bands
        found = pixel_format(io.BytesIO(content))
        value = found.orientation if found else 1
    else:
        try:
            with Image.open(io.BytesIO(content)) as image:
                value = image.getexif().get(ORIENTATION, 1)
        except HEADER_ERRORS:
            value = 1
    return value if value in range(1, 9) else 1


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels from the stored grid to the one in which viewers show them.

    Args:
        image: (H, W) or (H, W, bands).
        orientation: EXIF's, 1 to 8. 2 to 4 mirror or turn by 180 degrees; 5 to 8 swap
            height and width.
    """
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def label_orientation(path: str, image_hw: Tuple[int, int],
                      label_hw: Tuple[int, int]) -> int:
    """Return the orientation by which the label of an image is to be turned.

    Labels are drawn either on the photograph as viewers and OpenCV show it, or on the
    pixels as they are stored. The sides of the label tell which.

    Args:
        path: of the image.
        image_hw: (height, width) as it was read, turned.
        label_hw: (height, width) of its label.

    Returns:
        5 to 8 for a label with the sides of the stored pixels; 1, no turn, for any
        other, as always for square images and for those that are only mirrored or
        upside down.
    """
    if (image_hw[0] == image_hw[1] or tuple(label_hw) != tuple(image_hw)[::-1]
            or not os.path.isfile(path)):
        return 1
    with open(path, 'rb') as file:
        found = orientation_of(file.read())
    return found if found >= 5 else 1
