"""Convert the authors' checkpoints and MMSegmentation's to this package's."""
from . import mmsegmentation, pytorch_encoding, stdc_seg
from .conversion import Conversion
from .files import convert_file, save

__all__ = [
    'Conversion', 'convert_file', 'mmsegmentation', 'pytorch_encoding', 'save',
    'stdc_seg'
]
