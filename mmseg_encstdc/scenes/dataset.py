"""Scenes: the generated demo set of labelled streets and rooms."""
from mmseg.datasets import BaseSegDataset

from ..datasets.sample_checks import check_folders
from .classes import CLASSES, PALETTE

__all__ = ['ScenesDataset']


class ScenesDataset(BaseSegDataset):
    """Street and indoor scenes drawn by ``tools/make_scenes.py``.

    Layout under ``data_root``: images/{train,val}/NNNN.png and
    labels/{train,val}/NNNN.png.

    Args:
        **kwargs: arguments of MMSegmentation's BaseSegDataset.

    Raises:
        InputError: when a folder is missing.
    """
    METAINFO = dict(classes=CLASSES, palette=PALETTE)

    def __init__(self, img_suffix: str = '.png', **kwargs):
        super().__init__(img_suffix=img_suffix, **kwargs)

    def load_data_list(self) -> list:
        """Image and label paths; see BaseSegDataset."""
        check_folders(type(self).__name__, self.data_prefix.values())
        return super().load_data_list()
