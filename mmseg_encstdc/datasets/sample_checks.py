"""Check data sets on disk. Each error is one line with cause and remedy."""
import os
from typing import Iterable, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageOps

from ..compat.data import DECODE_ERRORS
from ..errors import InputError

__all__ = [
    'SOURCES', 'check_folders', 'check_image', 'check_label_format',
    'check_label_values', 'check_pair', 'check_pairs_exist', 'check_size',
    'unreadable'
]

# Data set type -> source of the data and layout on disk, for messages.
SOURCES = {
    'CamVidDataset':
    'CamVid comes with the SegNet tutorial (480 x 360, 11 classes); lay it out as '
    'data/camvid/{images,labels}/{train,val}/NAME.{jpg,png}',
    'ScenesDataset': 'write it with: python tools/make_scenes.py data/scenes',
    'ImageFolderDataset':
    'ImageNet 2012 from image-net.org; lay it out as '
    'data/imagenet/{train,val}/SYNSET/NAME.JPEG, the val images too in one folder for'
    ' each class',
    'ADE20KDataset':
    'ADEChallengeData2016 from the MIT scene parsing benchmark; lay it out as '
    'data/ade/ADEChallengeData2016/{images,annotations}/{training,validation}',
    'CityscapesDataset':
    'leftImg8bit and gtFine from cityscapes-dataset.com; lay them out as '
    'data/cityscapes/{leftImg8bit,gtFine}/{train,val} and write *_labelTrainIds.png '
    'with the cityscapesScripts package',
    'PascalVOCDataset':
    'VOC 2012 and the SBD annotations; lay them out as '
    'data/VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,SegmentationClassAug,ImageSets}',
    'PascalContextDataset59':
    'VOC 2010 and the PASCAL Context annotations; lay them out as '
    'data/VOCdevkit/VOC2010/{JPEGImages,SegmentationClassContext,ImageSets}',
    'COCOStuffDataset':
    'COCO 2017 images and the stuffthing maps; lay them out as '
    'data/coco_stuff164k/{images,annotations}/{train2017,val2017} with '
    '*_labelTrainIds.png',
}
# Pillow's names of the formats with one 8-bit id per pixel.
LABEL_MODES = ('1', 'L', 'P')
UNKNOWN_SOURCE = 'set data_root and data_prefix to where the data lie'


def check_folders(dataset_type: str, folders: Iterable[Optional[str]]) -> None:
    """Raise InputError unless every folder, or list file, exists.

    Empty names and None are skipped.
    """
    for folder in folders:
        if folder and not os.path.exists(folder):
            raise InputError(f'{dataset_type}: {folder} does not exist; '
                             f'{SOURCES.get(dataset_type, UNKNOWN_SOURCE)}')


def check_pairs_exist(dataset_type: str, samples: Iterable[dict]) -> int:
    """Check that the files of each sample exist.

    Args:
        dataset_type: type of the data set, for the message.
        samples: with ``img_path`` and, if labelled, ``seg_map_path``.

    Returns:
        The number of samples.

    Raises:
        InputError: naming the missing file, and when there are no samples.
    """
    count = 0
    for sample in samples:
        count += 1
        for kind, key in (('image', 'img_path'), ('label', 'seg_map_path')):
            path = sample.get(key)
            if path and not os.path.exists(path):
                raise InputError(
                    f'{dataset_type}: {kind} {path} is missing; every image needs a '
                    'label of the same stem, add it or remove the image')
    if not count:
        raise InputError(f'{dataset_type}: no images found; '
                         f'{SOURCES.get(dataset_type, UNKNOWN_SOURCE)}, and check '
                         'img_suffix and ann_file')
    return count


def check_size(image_path: str, image_hw: Sequence[int], label_path: str,
               label_hw: Sequence[int]) -> None:
    """Raise InputError unless image and label have the same (height, width)."""
    if tuple(image_hw) != tuple(label_hw):
        raise InputError(
            f'label {label_path} is {label_hw[1]} x {label_hw[0]} but its image '
            f'{image_path} is {image_hw[1]} x {image_hw[0]} (width x height); they '
            'must be equal, resize labels with nearest neighbour only')


def check_label_format(path: str) -> Optional[Tuple[int, int]]:
    """Check that a local file has one 8-bit id per pixel.

    MMSegmentation would take 16-bit ids modulo 256.

    Returns:
        (height, width), or None for what is no local file.

    Raises:
        InputError: for pixels of another format.
    """
    if not os.path.isfile(path):
        return None
    with Image.open(path) as file:
        if file.mode not in LABEL_MODES:
            raise InputError(
                f'label {path} has pixels of format {file.mode}; accepted is one '
                '8-bit class id a pixel, convert it')
        return file.size[::-1]


def check_label_values(path: str, label: np.ndarray, num_classes: int,
                       ignore_index: int = 255) -> None:
    """Raise InputError when ``label`` (H, W) holds an id out of range.

    Names up to ten of the ids.
    """
    invalid = label[(label != ignore_index) & (label >= num_classes)]
    if invalid.size:
        values = ', '.join(map(str, np.unique(invalid)[:10].tolist()))
        raise InputError(
            f'label {path} holds the values {values}; accepted are 0 to '
            f'{num_classes - 1} and {ignore_index} (ignore). Map the file or '
            'set num_classes')


def check_pair(sample: dict) -> None:
    """Decode an image and its label, and compare their sizes.

    Raises:
        InputError: when a file cannot be read or the sizes differ.
    """
    image, label = sample['img_path'], sample['seg_map_path']
    check_size(image, check_image(image), label, check_image(label, 'label'))


def check_image(path: str, kind: str = 'image') -> Tuple[int, int]:
    """Decode a file and return its (height, width) in pixels.

    Args:
        path: file.
        kind: 'image' or 'label'.

    Raises:
        InputError: when the file cannot be read.
    """
    try:
        with Image.open(path) as file:
            file.load()
            if kind == 'image':  # mmcv's loader applies the orientation, too
                file = ImageOps.exif_transpose(file)
            return file.size[::-1]
    except DECODE_ERRORS as error:
        raise unreadable(kind, path, error) from error


def unreadable(kind: str, path: str, error: Exception) -> InputError:
    """Return the error for a file that cannot be decoded."""
    first_line = (str(error).splitlines() or [''])[0]
    return InputError(f'{kind} {path} cannot be read ({first_line}); restore the file '
                      'or remove it')
