"""Operators: Encoding, and cross entropy of upsampled logits. They know torch,
and nothing of MMSegmentation."""
from .cross_entropy import (
    upsampled_cross_entropy,
    upsampled_cross_entropy_reference,
)
from .encoding import encode, encode_composite, encode_reference
from .selection import kth_largest

__all__ = [
    'encode', 'encode_composite', 'encode_reference', 'kth_largest',
    'upsampled_cross_entropy', 'upsampled_cross_entropy_reference'
]
