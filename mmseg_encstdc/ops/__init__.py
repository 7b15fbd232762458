"""The Encoding operator. Knows torch, and nothing of MMSegmentation."""
from .encoding import encode, encode_composite, encode_reference

__all__ = ['encode', 'encode_composite', 'encode_reference']
