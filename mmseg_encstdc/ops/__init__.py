"""Operators: Encoding, cross entropy of upsampled logits, k-th largest.

This package imports torch only. Each folder holds one operator: the checks of its
arguments, its schema, its implementations and its reference. ``backend`` chooses the
implementation.
"""
from .encode import encode
from .encode.reference import encode_composite, encode_reference
from .kth_largest import kth_largest
from .upsampled_cross_entropy import upsampled_cross_entropy
from .upsampled_cross_entropy.reference import upsampled_cross_entropy_reference

__all__ = [
    'encode', 'encode_composite', 'encode_reference', 'kth_largest',
    'upsampled_cross_entropy', 'upsampled_cross_entropy_reference'
]
