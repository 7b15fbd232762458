"""Data sets, their transforms, and the checks that name what is wrong."""
from .camvid import CamVidDataset
from .class_transforms import PackClassInputs, RandomResizedCrop
from .image_folder import ImageFolderDataset
from .transforms import ColorJitter, EnlargeToCrop, LoadSegAnnotations, LoadSegImage

__all__ = [
    'CamVidDataset', 'ColorJitter', 'EnlargeToCrop', 'ImageFolderDataset',
    'LoadSegAnnotations', 'LoadSegImage', 'PackClassInputs',
    'RandomResizedCrop'
]
