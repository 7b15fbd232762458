"""Build the image loader of a pipeline, for checks and for prediction."""
from typing import Optional, Sequence

from mmcv.transforms import LoadImageFromFile

from ..errors import as_input_error
from .transforms import LoadSegImage

__all__ = ['image_loader']

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
