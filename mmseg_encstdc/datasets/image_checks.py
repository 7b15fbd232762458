"""Read images for a check as the pipeline of a config reads them."""
from typing import Callable, Optional, Sequence, Tuple

from mmcv.transforms import BaseTransform, LoadImageFromFile
from PIL import Image

from ..compat.data import LOAD_ERRORS
from ..errors import as_input_error
from .image_files import check_eight_bit
from .sample_checks import check_image, unreadable
from .transforms import LoadSegImage

__all__ = ['image_loader', 'image_size_reader']

TIFF = ('.tif', '.tiff')
LOADERS = ('LoadImageFromFile', 'LoadSegImage')


def image_loader(pipeline: Optional[Sequence[dict]]) -> Optional[LoadSegImage]:
    """Build the loader of images at the beginning of a pipeline.

    Returns:
        LoadSegImage, in place of mmcv's loader too: it reads the same values, and
        rejects the files that mmcv's would change. It has default arguments for an
        empty pipeline. None for a loader of another type.

    Raises:
        InputError: for arguments that it does not take.
    """
    first = dict(pipeline[0]) if pipeline else dict(type='LoadSegImage')
    name = first.pop('type')
    if name not in (*LOADERS, LoadImageFromFile, LoadSegImage):
        return None
    with as_input_error(f'pipeline, {name}', (TypeError, ValueError)):
        return LoadSegImage(**first)


def image_size_reader(pipeline: Optional[Sequence[dict]]) -> Callable:
    """Return a function that decodes an image file and returns its (height, width).

    It reads the file as the pipeline does, turned or not, and rejects what this
    would read with other values than those of the file. Pillow decodes it, too, because
    OpenCV accepts truncated files; not a TIFF of bands, which it does not know.

    Args:
        pipeline: configs of transforms, of which the first loads the image. If it is
            neither mmcv's nor ours, the function returns None for a TIFF file, which
            may have what only that loader reads.
    """
    loader = image_loader(pipeline)
    if loader is None:
        return lambda path: None if path.lower().endswith(TIFF) else check_image(path)

    def read_size(path: str) -> Tuple[int, int]:
        if loader.reads_bands or loader.imdecode_backend == 'tifffile':
            if not path.lower().endswith(TIFF):
                check_image(path)
            return _loaded_size(loader, path)
        keeps_depth = loader.color_type == 'unchanged'
        check_eight_bit(path, keeps_depth)
        size = check_image(path)
        if keeps_depth or loader.color_type.endswith('ignore_orientation'):
            with Image.open(path) as file:
                return file.size[::-1]
        return size

    return read_size


def _loaded_size(loader: BaseTransform, path: str) -> Tuple[int, int]:
    """Return the (height, width) of an image that a loader reads."""
    try:
        return loader(dict(img_path=path))['img'].shape[:2]
    except LOAD_ERRORS as error:
        raise unreadable('image', path, error) from error
