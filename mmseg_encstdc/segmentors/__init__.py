"""Segmentors: how a whole image is scored from a network's logits."""
from .chip import ChipEncoderDecoder

__all__ = ['ChipEncoderDecoder']
