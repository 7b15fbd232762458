"""Label maps of images: arrays, files, lists of them, folders."""
import os
from pathlib import Path
from typing import Any, List, Optional, Tuple, Union

import mmcv
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS
from torch import nn

from ..compat import quiet
from ..compat.data import DECODE_ERRORS, LOAD_ERRORS
from ..datasets.sample_checks import unreadable
from ..engine.configs import datasets_of
from ..errors import InputError

__all__ = ['IMAGE_SUFFIXES', 'find_images', 'predict', 'read_image']

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
LABEL_LOADERS = ('LoadAnnotations', 'LoadSegAnnotations')
IMAGE_LOADERS = ('LoadImageFromFile', 'LoadSegImage')
ACCEPTED = 'accepted is an array (H, W, 3) of uint8, or the path of an image'

PathLike = Union[str, os.PathLike]


def predict(model: nn.Module, images: Any, rgb: bool = False,
            with_scores: bool = False) -> Any:
    """Label maps of one or more images, each at the size of its image.

    Images go through the test pipeline of the model's config, one at a time,
    and through its ``test_cfg`` (whole, slide or chip), as in tools/test.py.

    Args:
        model (nn.Module): what ``load`` returns, or ``init_model`` of
            MMSegmentation.
        images: an array (H, W, 3) of uint8; the path of an image or of a
            folder, in whose subfolders images are found too; or a list of
            arrays and paths of images.
        rgb (bool): arrays hold red, green, blue; else blue, green, red, as
            OpenCV and MMSegmentation have it. Default: False.
        with_scores (bool): give pairs (labels, scores) in place of labels.
            Scores are what the label is the largest of, (C, H, W) float32:
            logits, or sums of scores where ``test_cfg.mode`` is chip.
            Default: False.

    Returns:
        For an array or image, its labels: class ids, (H, W), uint8, or int64
        for more than 256 classes. For a list, a list of them. For a folder, an
        iterator of (Path of the image, labels) in the order of names, which
        reads an image when it is asked for the next.

    Raises:
        InputError: naming the image at fault, in one line: it does not exist,
            cannot be read, a folder holds none, or an array has another shape
            or type.
    """
    steps = _Steps(model)

    def one(image, name='image'):
        return _predict_one(model, steps, image, name, rgb, with_scores)

    if isinstance(images, (list, tuple)):
        names = [f'images[{i}]' for i in range(len(images))]
        for image, name in zip(images, names):
            _check_image(image, name)
        return [one(image, name) for image, name in zip(images, names)]
    if _is_path(images) and not os.fspath(images):
        raise InputError('the path of the images is empty; give an image or a '
                         'folder')
    if _is_path(images) and Path(images).is_dir():
        return ((path, one(path)) for path in find_images(images))
    return one(images)


def find_images(folder: PathLike, but: Optional[PathLike] = None) -> List[Path]:
    """Images in a folder and below, in the order of their names.

    Args:
        folder (path): where to look.
        but (path, optional): leave out what is below this folder.

    Raises:
        InputError: when the folder does not exist or holds none.
    """
    folder = Path(folder)
    outside = None if but is None else Path(but).resolve()
    found = sorted(
        path for path in folder.rglob('*')
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        and outside not in path.resolve().parents) if folder.is_dir() else []
    if not found:
        state = 'holds no image' if folder.is_dir() else 'does not exist'
        raise InputError(f'{folder} {state}; give images or folders with '
                         f'{", ".join(IMAGE_SUFFIXES)}')
    return found


def read_image(path: PathLike) -> np.ndarray:
    """An image file as (H, W, 3) uint8, BGR.

    Raises:
        InputError: when the file cannot be read.
    """
    try:
        image = mmcv.imread(path)
    except DECODE_ERRORS as error:
        raise unreadable('image', path, error) from error
    if image is None:
        raise unreadable('image', path, OSError('no image'))
    return image


class _Steps:
    """The test pipeline of a config, for images without labels."""

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
        self.from_file = TRANSFORMS.build(first)
        self.from_array = TRANSFORMS.build(dict(
            type='LoadImageFromNDArray',
            to_float32=first.get('to_float32', False)))
        self.rest = Compose(rest)

    def __call__(self, image: Union[np.ndarray, Path]) -> dict:
        """The batch of one image that ``test_step`` takes."""
        if isinstance(image, np.ndarray):
            sample = self.from_array(dict(img=image))
        else:
            try:
                sample = self.from_file(dict(img_path=str(image)))
            except InputError:
                raise
            except LOAD_ERRORS as error:
                raise unreadable('image', image, error) from error
        sample = self.rest(sample)
        return dict(inputs=[sample['inputs']],
                    data_samples=[sample['data_samples']])


def _predict_one(model: nn.Module, steps: _Steps, image: Any, name: str,
                 rgb: bool, with_scores: bool
                 ) -> Union[np.ndarray, Tuple[np.ndarray, np.ndarray]]:
    """Labels (H, W), and scores (C, H, W) if asked, of one image."""
    _check_image(image, name)
    if isinstance(image, np.ndarray) and rgb:
        image = np.ascontiguousarray(image[..., ::-1])
    with torch.no_grad(), quiet():
        result = model.test_step(steps(image))[0]
    scores = result.seg_logits.data  # (C, H, W)
    kind = np.uint8 if scores.size(0) <= 256 else np.int64
    labels = result.pred_sem_seg.data[0].cpu().numpy().astype(kind)
    if with_scores:
        return labels, scores.float().cpu().numpy()
    return labels


def _check_image(image: Any, name: str) -> None:
    """Raise InputError unless this is an array or file to predict."""
    if _is_path(image):
        if Path(image).is_dir():
            raise InputError(f'{name} {image} is a folder; give folders alone, '
                             'not in a list')
        if not Path(image).is_file():
            raise InputError(f'{name} {image} does not exist; {ACCEPTED}')
        return
    if not isinstance(image, np.ndarray):
        raise InputError(f'{name} is a {type(image).__name__}; {ACCEPTED}')
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f'{name} has shape {image.shape}; {ACCEPTED}')
    if image.dtype != np.uint8:
        raise InputError(f'{name} is of {image.dtype}; {ACCEPTED}')


def _is_path(image: Any) -> bool:
    return isinstance(image, (str, os.PathLike))
