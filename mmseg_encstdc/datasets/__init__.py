"""Define data sets, their transforms, and checks of their files."""
from .bad_images import SkipBadImages
from .camvid import CamVidDataset
from .class_transforms import PackClassInputs, RandomResizedCrop
from .image_folder import ImageFolderDataset
from .rare_class_sampler import RareClassSampler
from .transforms import ColorJitter, EnlargeToCrop, LoadSegAnnotations, LoadSegImage

__all__ = [
    'CamVidDataset', 'ColorJitter', 'EnlargeToCrop', 'ImageFolderDataset',
    'LoadSegAnnotations', 'LoadSegImage', 'PackClassInputs', 'RandomResizedCrop',
    'RareClassSampler', 'SkipBadImages'
]
