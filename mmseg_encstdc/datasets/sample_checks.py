"""Check data sets on disk. Each error is one line with cause and remedy."""
import os
from typing import Collection, Iterable, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..compat.data import DECODE_ERRORS
from ..errors import InputError

__all__ = [
    'SOURCES', 'SampleError', 'check_folders', 'check_image', 'check_label_format',
    'check_label_ids', 'check_label_shape', 'check_label_values', 'check_pairs_exist',
    'check_size', 'check_wide_ids', 'is_local', 'unreadable'
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
# Formats and pixels, as Pillow names them, that Pillow and OpenCV decode alike.
STANDARD_IMAGES = [(name, mode) for name in ('JPEG', 'PNG') for mode in ('L', 'RGB')]
FORMAT = 'labels of another format'
MISSING = dict(  # only a list can name an image that is not there
    image='each line of ann_file is the name of an image without img_suffix, in UTF-8 '
          'without a byte order mark, and no line is blank',
    label='every image needs a label of the same stem, add it or remove the image')
ORIENTATION = 0x0112  # tag of EXIF
UNKNOWN_SOURCE = 'set data_root and data_prefix to where the data lie'


class SampleError(InputError):
    """Report a fault of one sample.

    Args:
        message: see InputError.
        kind: the fault without its file, in the plural.
    """

    # An error of a data worker is made again from its message alone.
    def __init__(self, message: str, kind: str = 'faults'):
        super().__init__(message)
        self.kind = kind


def is_local(path: Optional[str], backend_args: Optional[dict] = None) -> bool:
    """Return whether a path is on a disk, as far as MMEngine's backends tell."""
    return not backend_args and '://' not in (path or '')


def check_folders(dataset_type: str, folders: Iterable[Optional[str]]) -> None:
    """Raise InputError unless every folder, or list file, exists.

    Empty names, None and addresses such as s3://... are skipped.
    """
    for folder in folders:
        if folder and is_local(folder) and not os.path.exists(folder):
            raise InputError(f'{dataset_type}: {folder} does not exist; '
                             f'{SOURCES.get(dataset_type, UNKNOWN_SOURCE)}')


def check_pairs_exist(dataset_type: str, samples: Iterable[dict],
                      local: bool = True) -> int:
    """Check that the files of each sample exist.

    Args:
        dataset_type: type of the data set, for the message.
        samples: with ``img_path`` and, if labelled, ``seg_map_path``.
        local: whether the files are on a disk. Others are not looked for.

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
            if path and local and is_local(path) and not os.path.exists(path):
                raise SampleError(
                    f'{dataset_type}: {kind} {path} is missing; {MISSING[kind]}',
                    f'{kind}s that are missing')
    if not count:
        raise InputError(f'{dataset_type}: no images found; '
                         f'{SOURCES.get(dataset_type, UNKNOWN_SOURCE)}, and check '
                         'img_suffix and ann_file')
    return count


def check_size(image_path: str, image_hw: Sequence[int], label_path: str,
               label_hw: Sequence[int]) -> None:
    """Raise InputError unless image and label have the same (height, width)."""
    if tuple(image_hw) != tuple(label_hw):
        raise SampleError(
            f'label {label_path} is {label_hw[1]} x {label_hw[0]} but its image '
            f'{image_path} is {image_hw[1]} x {image_hw[0]} (width x height); they '
            'must be equal, resize labels with nearest neighbour only',
            'labels of another size than their image')


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
            raise SampleError(
                f'label {path} has pixels of format {file.mode}; accepted is one '
                '8-bit class id a pixel, convert it', FORMAT)
        return file.size[::-1]


def check_label_shape(path: str, shape: Sequence[int]) -> None:
    """Raise InputError unless a loaded label is (H, W)."""
    if len(shape) < 2:
        raise SampleError(
            f'label {path} has a side of one pixel, which LoadAnnotations drops; load '
            'it with LoadSegAnnotations', FORMAT)
    if len(shape) > 2:
        raise SampleError(
            f'label {path} is loaded as an array of shape {tuple(shape)}; accepted is '
            'one class id a pixel. Convert the file or, if it has a palette of ids, '
            "set imdecode_backend='pillow' in its loader", FORMAT)


def check_wide_ids(path: str) -> None:
    """Raise InputError for a label with ids above 255.

    MMSegmentation would take them modulo 256. A file that Pillow cannot read is left
    to its loader.
    """
    if not os.path.isfile(path):
        return
    try:
        with Image.open(path) as file:
            highest = 0 if len(file.getbands()) > 1 or file.mode in LABEL_MODES else (
                np.asarray(file).max())
    except DECODE_ERRORS:
        return
    if highest > 255:
        raise SampleError(
            f'label {path} holds the value {highest}; accepted are 8-bit class ids, '
            'convert it', FORMAT)


def check_label_values(path: str, label: np.ndarray, num_classes: int,
                       ignore_index: int = 255) -> None:
    """Raise InputError when ``label`` (H, W) holds an id out of range.

    Names up to ten of the ids.
    """
    invalid = label[(label != ignore_index) & (label >= num_classes)]
    if invalid.size:
        check_label_ids(path, np.unique(invalid).tolist(), num_classes,
                        (ignore_index, ))


def check_label_ids(path: str, ids: Iterable[int], num_classes: int,
                    ignored: Collection[int]) -> None:
    """Raise InputError for an id that is no class and is not ignored.

    Args:
        path: of the label.
        ids: that occur in it.
        num_classes: accepted are ids below it.
        ignored: ids that are accepted too.
    """
    invalid = sorted(i for i in ids if not 0 <= i < num_classes and i not in ignored)
    if invalid:
        raise SampleError(
            f'label {path} holds the values {", ".join(map(str, invalid[:10]))}; '
            f'accepted are 0 to {num_classes - 1} and '
            f'{", ".join(map(str, sorted(ignored)))} (ignore). If 0 is to be ignored '
            'and the classes begin at 1, set reduce_zero_label=True in the data set; '
            'else map the values with LoadSegAnnotations(values=...), or give the data '
            'set a class for each', 'labels with values outside the classes')


def check_image(path: str) -> Optional[Tuple[int, int]]:
    """Decode an image that Pillow and OpenCV decode alike; Pillow finds truncation.

    Returns:
        (height, width) in pixels, or None for an image of another format, of other
        pixels, turned by its EXIF data, or too large for Pillow: its loader decides.

    Raises:
        InputError: when the file cannot be read.
    """
    try:
        with Image.open(path) as file:
            if (file.format, file.mode) not in STANDARD_IMAGES:
                return None
            file.load()
            turned = file.getexif().get(ORIENTATION, 1) != 1
            return None if turned else file.size[::-1]
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return None
    except DECODE_ERRORS as error:
        raise unreadable('image', path, error) from error


def unreadable(kind: str, path: str, error: Exception,
               by: Optional[str] = None) -> InputError:
    """Return the error for a file that cannot be decoded.

    Args:
        kind: 'image' or 'label'.
        path: file.
        error: what the decoder raised.
        by: the loader, where it is not the plugin's.
    """
    first_line = (str(error).splitlines() or [''])[0]
    cause = f'{by}: {type(error).__name__}: {first_line}' if by else first_line
    return SampleError(f'{kind} {path} cannot be read ({cause}); restore the file '
                       'or remove it', f'{kind}s that cannot be read')
