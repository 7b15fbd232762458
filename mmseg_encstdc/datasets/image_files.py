"""Read images of any number of bands, and find files that would be read wrongly."""
import importlib.util
import io
import os
import struct

import cv2
import numpy as np
from PIL import Image

from ..compat.data import DECODE_ERRORS, PIXEL_LIMIT, pixel_limit
from ..errors import InputError
from .image_formats import (
    AS_STORED,
    BLACK_IS_ZERO,
    RGB,
    SEPARATED,
    WHITE_IS_ZERO,
    PixelFormat,
    count_pixels,
    is_tiff,
    orientation_of,
    pixel_format,
    turn,
)
from .sample_checks import SampleError, unreadable

__all__ = ['DTYPES', 'check_eight_bit', 'check_pixels', 'read_bands']

DTYPES = ('uint8', 'uint16', 'int16', 'uint32', 'int32', 'float32', 'float64')
JPEG = b'\xff\xd8\xff'
# Exceptions of tifffile for a damaged file, or a compression that it cannot read.
TIFF_ERRORS = (*DECODE_ERRORS, ValueError, KeyError, IndexError, TypeError,
               RuntimeError, ImportError, MemoryError, ArithmeticError,
               AttributeError, struct.error)


def check_pixels(path: str) -> None:
    """Raise InputError for a local file whose header says that it is very large.

    A file of a few kilobytes can decode to gigabytes. The limit is 2^29, or the
    environment variable MMSEG_ENCSTDC_MAX_PIXELS.

    Args:
        path: file; what is no local file is not checked.
    """
    if not os.path.isfile(path):
        return
    with open(path, 'rb') as file:
        found = count_pixels(file)
    if found and found > pixel_limit():
        raise SampleError(
            f'image {path} has {found} pixels, above the limit of {pixel_limit()}; cut '
            f'it into tiles, or set {PIXEL_LIMIT}={found} if you trust it',
            'images above the limit of pixels')


def check_eight_bit(path: str, keeps_depth: bool = False) -> None:
    """Check that OpenCV reads a local file without loss.

    OpenCV reduces other depths to 8 bits, takes the first band or page of some TIFF
    files, and multiplies the colours of a TIFF by its alpha.

    Args:
        path: file; what is no local file is not checked.
        keeps_depth: whether it is read with color_type='unchanged', which keeps the
            depth.

    Raises:
        InputError: for a file that would be read with other values.
    """
    if not os.path.isfile(path):
        return
    with open(path, 'rb') as file:
        if file.read(3) == JPEG:  # always 8 bits; saves the time to parse it
            return
        file.seek(0)
        found = pixel_format(file)
    if found is None:
        return
    remedy = f'LoadSegImage({_arguments(found)})'
    if found.pages > 1:
        raise InputError(f'image {path} has {found.pages} pages, of which OpenCV reads '
                         f'the first; read them as bands with {remedy}, or keep one')
    colours = (found.bands - found.alpha, found.photometric)
    if found.photometric is not None and colours[0] not in (1, 3) and (
            colours != (4, SEPARATED)):  # CMYK, which OpenCV converts
        raise InputError(f'image {path} has {found.bands} bands, which OpenCV cannot '
                         f'read as 3; read them with {remedy}')
    if found.dtype != 'uint8' and not keeps_depth:
        raise InputError(
            f'image {path} has pixels of {found.dtype}, which OpenCV reduces to 8 '
            f'bits; read them with {remedy}, and set mean and std of '
            'model.data_preprocessor in their units')
    if found.photometric is not None and found.alpha and not keeps_depth:
        _check_opaque(path, remedy)


def _arguments(found: PixelFormat) -> str:
    """Return the arguments of LoadSegImage that read a file as it is."""
    return f"bands={found.bands}, dtype='{found.dtype}'"


def _check_opaque(path: str, remedy: str) -> None:
    """Raise InputError unless the alpha of a TIFF is 255 everywhere."""
    with Image.open(path) as image:
        if 'A' in image.getbands() and image.getchannel('A').getextrema()[0] < 255:
            raise InputError(f'image {path} has an alpha band, by which OpenCV '
                             f'multiplies its colours; read it with {remedy}, or '
                             'save it without')


def read_bands(content: bytes, path: str, bands: int, dtype: str) -> np.ndarray:
    """Read the pixels of a file as they are, turned as its orientation says.

    Args:
        content: of the file.
        path: its name, for messages.
        bands: number of bands that it must have, with alpha.
        dtype: type of the pixels that it must have, one of ``DTYPES``.

    Returns:
        (H, W, bands), or (H, W) for one band; uint8, or float32 for other types. Three
        bands are in OpenCV's order (BGR), others in that of the file.

    Raises:
        InputError: when the file cannot be read, has other bands or another type, or
            holds NaN or infinity.
    """
    image = (_read_tiff if is_tiff(content) else _decode)(content, path)
    found = 1 if image.ndim == 2 else image.shape[2]
    if (found, str(image.dtype)) != (bands, dtype):
        raise InputError(
            f'image {path} has {_words(found, image.dtype)}, but LoadSegImage is set '
            f'to {_words(bands, dtype)}; all images of a config must be alike, so '
            f'convert the file or set {_arguments(PixelFormat(found, image.dtype))}, '
            'and mean and std of model.data_preprocessor and in_channels of the '
            'backbone with it')
    if image.dtype.kind == 'f' and not np.isfinite(image).all():
        raise InputError(f'image {path} holds NaN or infinity; replace them by a '
                         'number, and ignore these pixels in the label')
    if bands == 3:
        image = image[..., ::-1]
    image = turn(image, orientation_of(content))
    return image if dtype == 'uint8' else image.astype(np.float32)


def _words(bands: int, dtype: object) -> str:
    return f'{bands} band{"s" * (bands > 1)} of {dtype}'


def _decode(content: bytes, path: str) -> np.ndarray:
    """Decode a file that is no TIFF by OpenCV, in the order of its bands."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise unreadable('image', path, OSError('no image that OpenCV knows'))
    if image.ndim < 3:
        return image
    found = pixel_format(io.BytesIO(content))
    if found and found.bands == 2:  # grey and alpha, which OpenCV gives as BGRA
        return image[..., [0, 3]]
    return image[..., [2, 1, 0, 3][:image.shape[2]]]


def _read_tiff(content: bytes, path: str) -> np.ndarray:
    """Read a TIFF by OpenCV, where this needs no other package, or by tifffile."""
    found = pixel_format(io.BytesIO(content))
    if found is None:
        raise unreadable('image', path, OSError('damaged header'))
    if found.photometric not in AS_STORED:
        raise InputError(
            f'image {path} has the PhotometricInterpretation {found.photometric}; '
            'accepted are grey, RGB and separate bands, convert it, or leave bands and '
            'dtype of LoadSegImage out for colours of 8 bits')
    plain = (found.bands, found.photometric) in ((1, BLACK_IS_ZERO), (3, RGB))
    if plain and found.orientation == 1:
        return _decode(content, path)
    if importlib.util.find_spec('tifffile') is None:
        raise InputError(f'image {path} is a TIFF of {found.bands} bands, which needs '
                         'the package tifffile: pip install tifffile imagecodecs')
    import tifffile
    try:
        series = tifffile.TiffFile(io.BytesIO(content)).series[0]
        image = _bands_last(series.asarray(), series.axes)
    except TIFF_ERRORS as error:
        if 'imagecodecs' in str(error):
            raise InputError(f'image {path} is compressed, and reading it '
                             'needs a package: pip install imagecodecs') from error
        raise unreadable('image', path, error) from error
    if image.ndim > 3:
        raise InputError(f'image {path} has the axes {series.axes}; accepted are '
                         'height, width and bands')
    return _inverted(image) if found.photometric == WHITE_IS_ZERO else image


def _bands_last(image: np.ndarray, axes: str) -> np.ndarray:
    """Return (H, W) or (H, W, bands) of an array whose axes tifffile names."""
    keep = [i for i, axis in enumerate(axes) if axis in 'YX' or image.shape[i] > 1]
    order = sorted(keep, key=lambda i: 'YX'.find(axes[i]) % 3)
    dropped = tuple(i for i in range(image.ndim) if i not in keep)
    return image.transpose(*dropped, *order).reshape([image.shape[i] for i in order])


def _inverted(image: np.ndarray) -> np.ndarray:
    """Invert integers whose largest value is black, as viewers do."""
    if image.dtype.kind != 'u':
        return image
    return np.iinfo(image.dtype).max - image
