#!/usr/bin/env python
"""Convert a checkpoint of MMSegmentation: tools/convert/stock.py SRC DST --config CFG

Its EncNet and STDC load as they are; this is for STDC where the config has the
one-channel DetailHead in place of the two-channel STDCHead.
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
