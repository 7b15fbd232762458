"""Train on the images that can be read, and count the others."""
from typing import Any, Dict

from mmengine.dataset import BaseDataset
from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from .sample_checks import SampleError

__all__ = ['BAD_IMAGES', 'SkipBadImages']

BAD_IMAGES = 'bad_images'  # of a sample's metainfo: message by path of the image


class SkipBadImages(Dataset):
    """Put the next image of a data set in the place of one that cannot be read.

    The sample that is returned names the images left out, in the metainfo
    ``bad_images``. :class:`mmseg_encstdc.engine.CountBadImages` counts them.

    Args:
        dataset: a data set, or its config.

    Raises:
        InputError: when no image can be read.
    """

    def __init__(self, dataset: Any):
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset

    @property
    def metainfo(self) -> dict:
        """Return the metainfo of the data set."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """List the files of the data set."""
        self.dataset.full_init()

    def get_data_info(self, idx: int) -> dict:
        """Return what is known of a sample before it is loaded."""
        return self.dataset.get_data_info(idx)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> dict:
        bad: Dict[str, str] = {}
        for step in range(len(self)):
            index = (idx + step) % len(self)
            try:
                sample = self.dataset[index]
            except SampleError as error:
                last = error
                bad[_path(self.dataset, index)] = str(error)
                continue
            if bad:
                sample['data_samples'].set_metainfo({BAD_IMAGES: bad})
            return sample
        raise last


def _path(dataset: BaseDataset, index: int) -> str:
    """Return the path of an image; its index where the data set does not tell."""
    info = dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}
    return info.get('img_path', f'image {index}')
