"""Read CamVid: 480 x 360 street scenes, the 11-class split of the SegNet tutorial."""
from typing import List, Optional, Sequence

from mmseg.datasets import BaseSegDataset

from .sample_checks import check_folders

__all__ = ['CamVidDataset']

VOID = 11
IGNORE = 255


class CamVidDataset(BaseSegDataset):
    """Read CamVid with 11 classes; void (11) is ignored.

    Layout under ``data_root``: images/{train,val}/NAME.jpg and
    labels/{train,val}/NAME.png, one 8-bit class id per pixel.

    Args:
        **kwargs: arguments of MMSegmentation's BaseSegDataset.

    Raises:
        InputError: when a folder is missing.
    """
    METAINFO = dict(
        classes=('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign',
                 'fence', 'car', 'pedestrian', 'bicyclist'),
        palette=[[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128],
                 [60, 40, 222], [128, 128, 0], [192, 128, 128], [64, 64, 128],
                 [64, 0, 128], [64, 64, 0], [0, 128, 192]])

    @classmethod
    def get_label_map(cls, new_classes: Optional[Sequence[str]] = None) -> dict:
        """Map ids of the files to class ids; void and omitted classes to 255."""
        return {**(super().get_label_map(new_classes) or {}), VOID: IGNORE}

    def load_data_list(self) -> List[dict]:
        """Return the paths of each image and its label."""
        check_folders(type(self).__name__, self.data_prefix.values())
        return super().load_data_list()
