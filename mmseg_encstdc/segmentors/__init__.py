"""Define the segmentor with the authors' test protocols."""
from .chip import ChipEncoderDecoder

__all__ = ['ChipEncoderDecoder']
