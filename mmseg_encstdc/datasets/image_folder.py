"""Images in one folder for each class, as ImageNet lies on disk."""
import os
import os.path as osp
from typing import List

from mmengine.dataset import BaseDataset

from ..errors import InputError
from .sample_checks import check_folders

__all__ = ['ImageFolderDataset']

CLASS_IMAGE_SUFFIXES = ('.jpeg', '.jpg', '.png')


class ImageFolderDataset(BaseDataset):
    """Images whose class is the folder that they lie in.

    Layout under ``data_root``: SPLIT/CLASS/NAME.{jpeg,jpg,png} (in any case),
    with ``data_prefix=dict(img_path=SPLIT)``. Folders and files whose name
    begins with a dot are left out.

    ``metainfo.classes``, a list or a file with one folder name a line, says
    which folders are classes, in the order of their ids; other folders are
    left out. Without it, all folders are, in the order of their names.

    Each sample has ``img_path`` and ``gt_label`` (int).

    Args:
        **kwargs: arguments of MMEngine's BaseDataset.

    Raises:
        InputError: when a folder is missing or holds no image, or
            ``metainfo.classes`` is no list, naming it.
    """

    def load_data_list(self) -> List[dict]:
        """Paths and labels of all images, class by class."""
        root = self.data_prefix['img_path']
        check_folders(type(self).__name__, [root])
        classes = self._find_classes(root)
        self._metainfo['classes'] = classes
        return [
            dict(img_path=path, gt_label=label)
            for label, name in enumerate(classes)
            for path in images_of_class(osp.join(root, name))
        ]

    def _find_classes(self, root: str) -> tuple:
        """Names of the class folders, in the order of their ids."""
        given = self._metainfo.get('classes')
        if given is None:
            classes = tuple(
                entry.name for entry in visible(root) if entry.is_dir())
            if not classes:
                raise InputError(f'{type(self).__name__}: {root} holds no '
                                 'folders; it needs one for each class')
            return classes
        # MMEngine keeps the name of a file that does not exist as the classes.
        # Only the user can mend that, so nothing is worked around.
        if isinstance(given, str):
            raise InputError(f'metainfo.classes: {given} does not exist; give '
                             'a list, or a file with one folder name a line')
        repeated = {name for name in given if list(given).count(name) > 1}
        if repeated:
            raise InputError('metainfo.classes names '
                             f'{", ".join(sorted(repeated))} more than once')
        return tuple(given)


def images_of_class(folder: str) -> List[str]:
    """Paths of the images in a class folder, in the order of their names.

    Raises:
        InputError: when the folder does not exist or holds none.
    """
    if not osp.isdir(folder):
        raise InputError(f'class folder {folder} does not exist, but '
                         'metainfo.classes names it')
    paths = [
        entry.path for entry in visible(folder)
        if entry.name.lower().endswith(CLASS_IMAGE_SUFFIXES)
    ]
    if not paths:
        raise InputError(f'class folder {folder} holds no image with '
                         f'{", ".join(CLASS_IMAGE_SUFFIXES)}; add one, or remove '
                         'the folder')
    return paths


def visible(folder: str) -> List[os.DirEntry]:
    """What is in a folder, in the order of names, without hidden entries."""
    with os.scandir(folder) as entries:
        return sorted(
            (entry for entry in entries if not entry.name.startswith('.')),
            key=lambda entry: entry.name)
