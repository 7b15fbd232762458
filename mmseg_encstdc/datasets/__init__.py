"""Data sets, their transforms, and the checks that name what is wrong."""
from .camvid import CamVidDataset
from .scenes import ScenesDataset
from .transforms import ColorJitter, EnlargeToCrop, LoadSegAnnotations, LoadSegImage

__all__ = [
    'CamVidDataset', 'ColorJitter', 'EnlargeToCrop', 'LoadSegAnnotations',
    'LoadSegImage', 'ScenesDataset'
]
