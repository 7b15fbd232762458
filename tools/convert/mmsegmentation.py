#!/usr/bin/env python
"""Convert a checkpoint of MMSegmentation:
tools/convert/mmsegmentation.py SRC DST --config CFG

Only STDC with the one-channel DetailHead in place of the two-channel STDCHead needs
this; all other checkpoints of EncNet and STDC load as they are.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
try:
    from mmseg_encstdc.cli import run_converter
    from mmseg_encstdc.convert import mmsegmentation
except ImportError as error:
    sys.exit(f'error: {error}')

if __name__ == '__main__':
    run_converter(mmsegmentation, __doc__)
