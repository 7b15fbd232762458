"""Predict label maps of images: arrays, files, lists of them, folders."""
import os
from functools import partial
from pathlib import Path
from typing import Any, List, Optional, Tuple, Union

import cv2
import mmcv
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS
from torch import nn

from ..compat import quiet
from ..compat.data import DECODE_ERRORS
from ..datasets.image_checks import image_loader
from ..datasets.image_files import DTYPES
from ..datasets.sample_checks import unreadable
from ..datasets.stray_files import is_hidden
from ..engine.checks.image_channels import input_format
from ..engine.configs import datasets_of
from ..errors import InputError

__all__ = ['IMAGE_SUFFIXES', 'find_images', 'predict', 'read_image']

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
LABEL_LOADERS = ('LoadAnnotations', 'LoadSegAnnotations')
IMAGE_LOADERS = ('LoadImageFromFile', 'LoadSegImage')
PATHS = (str, os.PathLike)

PathLike = Union[str, os.PathLike]


def predict(model: nn.Module, images: Any, rgb: bool = False,
            with_scores: bool = False) -> Any:
    """Predict the labels of one or more images, at the size of each image.

    Images go one at a time through the test pipeline of the model's config and
    its ``test_cfg`` (whole, slide or chip), as in tools/test.py.

    A photograph is turned as its EXIF orientation says. So its labels are those of
    the pixels that viewers and OpenCV show, not of the pixels as they are stored.

    Args:
        model: what ``load`` returns, or MMSegmentation's ``init_model``.
        images: an array (H, W, 3) of uint8; the path of an image; the path of a
            folder, which is searched with its subfolders; or a list of arrays
            and paths of images. If ``bands`` or ``dtype`` of LoadSegImage say
            otherwise in the config, an array (H, W, bands), or (H, W) for one band,
            of that type; the order of its bands is that of the files, and BGR for
            three.
        rgb: whether the channels of arrays are red, green, blue; else blue,
            green, red, the order of OpenCV and MMSegmentation. For three bands.
        with_scores: return pairs (labels, scores) in place of labels. Scores,
            (C, H, W) float32, are logits, or sums of scores where
            ``test_cfg.mode`` is chip.

    Returns:
        For an array or an image, its class ids, (H, W), uint8, or int64 for
        more than 256 classes. For a list, a list of them. For a folder, an
        iterator of (Path of the image, labels) in the order of names, which
        reads one image at a time.

    Raises:
        InputError: naming the image, when it does not exist, cannot be read or
            is an array of another shape or type, or the folder, when it holds
            no image.
    """
    predict_one = partial(_predict_one, model, _TestPipeline(model), rgb=rgb,
                          with_scores=with_scores)
    if isinstance(images, (list, tuple)):
        named = [(image, f'images[{i}]') for i, image in enumerate(images)]
        pipeline = predict_one.args[1]
        for image, name in named:
            pipeline.check(image, name, rgb)
        return [predict_one(image, name) for image, name in named]
    if isinstance(images, PATHS):
        if not os.fspath(images):
            raise InputError('the path of the images is empty; give an image or a '
                             'folder')
        if Path(images).is_dir():
            return ((path, predict_one(path)) for path in find_images(images))
    return predict_one(images)


def find_images(folder: PathLike, but: Optional[PathLike] = None) -> List[Path]:
    """Return the images in a folder and its subfolders, sorted by path.

    Hidden files, such as ._a.png, and hidden folders are left out.

    Args:
        folder: to search.
        but: folder whose content is left out.

    Raises:
        InputError: when the folder does not exist or holds no image.
    """
    folder = Path(folder)
    outside = None if but is None else Path(but).resolve()
    found = sorted(
        path for path in folder.rglob('*')
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        and not is_hidden(str(path.relative_to(folder)))
        and outside not in path.resolve().parents) if folder.is_dir() else []
    if not found:
        state = 'holds no image' if folder.is_dir() else 'does not exist'
        raise InputError(f'{folder} {state}; give images or folders with '
                         f'{", ".join(IMAGE_SUFFIXES)}')
    return found


def read_image(path: PathLike, model: Optional[nn.Module] = None) -> np.ndarray:
    """Read an image file as a picture to look at, (H, W, 3) uint8, BGR.

    Args:
        path: file.
        model: whose config says how its files are read; of more than three bands the
            first three are shown as red, green and blue, of two the first. Other types
            than uint8 are scaled from their smallest and largest value. None reads
            8-bit colours.

    Raises:
        InputError: when the file cannot be read.
    """
    if model is not None:
        return _picture(_TestPipeline(model).read(path)['img'])
    try:
        image = mmcv.imread(path)
    except DECODE_ERRORS as error:
        raise unreadable('image', path, error) from error
    if image is None:
        raise unreadable('image', path, OSError('no image'))
    return image


def _picture(image: np.ndarray) -> np.ndarray:
    """Make (H, W, 3) uint8, BGR, of (H, W) or (H, W, bands), see read_image."""
    bands = 1 if image.ndim == 2 else image.shape[2]
    if image.ndim == 3 and bands != 3:
        image = image[..., 2::-1] if bands > 3 else image[..., 0]
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        if not (0 <= low and high <= 255 and np.equal(np.mod(image, 1), 0).all()):
            image = (image - low) * (255 / max(high - low, 1e-12))
        image = image.astype(np.uint8)
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image)


class _TestPipeline:
    """Run the test pipeline of a model's config without its labels.

    Args:
        model: with its config as ``cfg``.

    Raises:
        InputError: when there is no config, or its pipeline does not begin with
            one of ``IMAGE_LOADERS``.
    """

    def __init__(self, model: nn.Module):
        cfg = getattr(model, 'cfg', None)
        if cfg is None:
            raise InputError('this model has no cfg; take one of '
                             'mmseg_encstdc.apis.load')
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        dataset = next(datasets_of(cfg.test_dataloader.dataset))
        first, *rest = (dict(step) for step in dataset['pipeline']
                        if step['type'] not in LABEL_LOADERS)
        if first['type'] not in IMAGE_LOADERS:
            raise InputError(
                f'the test pipeline begins with {first["type"]}; accepted is '
                f'{" or ".join(IMAGE_LOADERS)}')
        self.bands, self.dtype = input_format(cfg)
        self.from_file = image_loader([first])  # rejects what mmcv's would change
        self.from_array = TRANSFORMS.build(dict(
            type='LoadImageFromNDArray',
            to_float32=first.get('to_float32', False) or self.dtype != 'uint8'))
        self.rest = Compose(rest)

    @property
    def accepted(self) -> str:
        """Describe what can be predicted."""
        shape = '(H, W) or (H, W, 1)' if self.bands == 1 else f'(H, W, {self.bands})'
        dtype = f'of {self.dtype}' if self.dtype else 'in the units of the files'
        if self.dtype not in (None, 'uint8', 'float32'):
            dtype += ', or float32 in the same units,'
        return f'accepted is an array {shape} {dtype}, or the path of an image'

    def check(self, image: Any, name: str, rgb: bool) -> None:
        """Raise InputError unless this is a file, or an array that is accepted."""
        if rgb and self.bands != 3:
            raise InputError(f'rgb=True is for images of 3 bands, but the config reads '
                             f'{self.bands}; leave it out')
        if isinstance(image, PATHS):
            if Path(image).is_dir():
                raise InputError(f'{name} {image} is a folder; give folders alone, '
                                 'not in a list')
            if not Path(image).is_file():
                raise InputError(f'{name} {image} does not exist; {self.accepted}')
            return
        if not isinstance(image, np.ndarray):
            raise InputError(f'{name} is a {type(image).__name__}; {self.accepted}')
        bands = 1 if image.ndim == 2 and self.bands == 1 else image.shape[2:]
        if bands not in (self.bands, (self.bands, )) or 0 in image.shape:
            raise InputError(f'{name} has shape {image.shape}; {self.accepted}')
        self._check_values(image, name)

    def _check_values(self, image: np.ndarray, name: str) -> None:
        """Raise InputError for another type of pixels, for NaN and for infinity."""
        types = {'uint8': ('uint8', ), None: DTYPES}.get(
            self.dtype, (self.dtype, 'float32'))
        if str(image.dtype) not in types:
            raise InputError(f'{name} is of {image.dtype}; {self.accepted}')
        if image.dtype.kind == 'f' and not np.isfinite(image).all():
            raise InputError(f'{name} holds NaN or infinity; replace them by a number')

    def read(self, path: PathLike) -> dict:
        """Return the sample of an image file, with its pixels as ``img``."""
        return self.from_file(dict(img_path=str(path)))

    def __call__(self, image: Union[np.ndarray, PathLike]) -> dict:
        """Return a batch of one image, for ``test_step``."""
        if isinstance(image, np.ndarray):
            sample = self.from_array(dict(img=image))
        else:
            sample = self.read(image)
        sample = self.rest(sample)
        return dict(inputs=[sample['inputs']],
                    data_samples=[sample['data_samples']])


def _predict_one(model: nn.Module, pipeline: _TestPipeline, image: Any,
                 name: str = 'image', *, rgb: bool, with_scores: bool
                 ) -> Union[np.ndarray, Tuple[np.ndarray, np.ndarray]]:
    """Return labels (H, W) of an image, and scores (C, H, W) if asked.

    Args:
        model: see :func:`predict`, as are ``rgb`` and ``with_scores``.
        pipeline: of the model.
        image: array or path.
        name: of the image, for messages.
    """
    pipeline.check(image, name, rgb)
    if isinstance(image, np.ndarray) and rgb:
        image = np.ascontiguousarray(image[..., ::-1])
    with torch.no_grad(), quiet():
        result = model.test_step(pipeline(image))[0]
    scores = result.seg_logits.data  # (C, H, W)
    dtype = np.uint8 if scores.size(0) <= 256 else np.int64
    labels = result.pred_sem_seg.data[0].cpu().numpy().astype(dtype)
    return (labels, scores.float().cpu().numpy()) if with_scores else labels
