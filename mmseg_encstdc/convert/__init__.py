"""From the authors' checkpoints, and MMSegmentation's, to this package's."""
from . import pytorch_encoding, stdc_seg, stock
from .checkpoint import Conversion, read, save

__all__ = ['Conversion', 'pytorch_encoding', 'read', 'save', 'stdc_seg', 'stock']
