"""Define the segmentor with the authors' test protocols, and its augmentations."""
from .chip import ChipEncoderDecoder
from .tta import SegTTAModel

__all__ = ['ChipEncoderDecoder', 'SegTTAModel']
