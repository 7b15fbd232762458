"""Read the generated demo set of streets and rooms."""
from typing import List

from mmseg.datasets import BaseSegDataset

from ..datasets.sample_checks import check_folders
from .classes import CLASSES, PALETTE

__all__ = ['ScenesDataset']


class ScenesDataset(BaseSegDataset):
    """Read the street and indoor scenes that ``tools/make_scenes.py`` wrote.

    Layout under ``data_root``: images/{train,val}/NNNN.png and
    labels/{train,val}/NNNN.png.

    Args:
        img_suffix: suffix of the image files.
        **kwargs: arguments of MMSegmentation's BaseSegDataset.

    Raises:
        InputError: when a folder is missing.
    """
    METAINFO = dict(classes=CLASSES, palette=PALETTE)

    def __init__(self, img_suffix: str = '.png', **kwargs):
        super().__init__(img_suffix=img_suffix, **kwargs)

    def load_data_list(self) -> List[dict]:
        """Return the paths of each image and its label."""
        check_folders(type(self).__name__, self.data_prefix.values())
        return super().load_data_list()
