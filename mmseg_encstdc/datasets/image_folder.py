"""Read images that lie in one folder per class, as ImageNet does."""
import os
import os.path as osp
from typing import List, Tuple

from mmengine.dataset import BaseDataset

from ..errors import InputError
from .sample_checks import check_folders

__all__ = ['ImageFolderDataset']

CLASS_IMAGE_SUFFIXES = ('.jpeg', '.jpg', '.png')


class ImageFolderDataset(BaseDataset):
    """Read images whose class is their folder.

    Layout under ``data_root``: SPLIT/CLASS/NAME.{jpeg,jpg,png} (in any case), with
    ``data_prefix=dict(img_path=SPLIT)``. Names that begin with a dot are left out.

    ``metainfo.classes``, a list or a file with one folder name per line, selects class
    folders in the order of their ids. The default is all folders, sorted by name.

    Each sample has ``img_path`` and ``gt_label`` (int).

    Args:
        **kwargs: arguments of MMEngine's BaseDataset.

    Raises:
        InputError: when a folder is missing or has no image, and when
            ``metainfo.classes`` is a missing file or repeats a name.
    """

    def load_data_list(self) -> List[dict]:
        """Return the path and label of each image, class by class."""
        root = self.data_prefix['img_path']
        check_folders(type(self).__name__, [root])
        classes = self._metainfo['classes'] = self._find_classes(root)
        return [dict(img_path=path, gt_label=label)
                for label, name in enumerate(classes)
                for path in list_images(osp.join(root, name))]

    def _find_classes(self, root: str) -> Tuple[str, ...]:
        """Return the names of the class folders, in the order of their ids."""
        given = self._metainfo.get('classes')
        if given is None:
            classes = tuple(
                entry.name for entry in list_visible(root) if entry.is_dir())
            if not classes:
                raise InputError(f'{type(self).__name__}: {root} holds no folders; it '
                                 'needs one for each class')
            return classes
        if isinstance(given, str):  # MMEngine keeps the name of a missing file
            raise InputError(f'metainfo.classes: {given} does not exist; give a list, '
                             'or a file with one folder name a line')
        repeated = {name for name in given if list(given).count(name) > 1}
        if repeated:
            raise InputError('metainfo.classes names '
                             f'{", ".join(sorted(repeated))} more than once')
        return tuple(given)


def list_images(folder: str) -> List[str]:
    """Return the paths of the images in a class folder, sorted by name.

    Raises:
        InputError: when the folder does not exist or has no image.
    """
    if not osp.isdir(folder):
        raise InputError(f'class folder {folder} does not exist, but metainfo.classes '
                         'names it')
    paths = [entry.path for entry in list_visible(folder)
             if entry.name.lower().endswith(CLASS_IMAGE_SUFFIXES)]
    if not paths:
        raise InputError(f'class folder {folder} holds no image with '
                         f'{", ".join(CLASS_IMAGE_SUFFIXES)}; add one, or remove the '
                         'folder')
    return paths


def list_visible(folder: str) -> List[os.DirEntry]:
    """Return the entries of a folder that are not hidden, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith('.')),
                      key=lambda entry: entry.name)
