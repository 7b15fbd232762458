#!/usr/bin/env python
"""Convert a checkpoint of PyTorch-Encoding:
tools/convert/pytorch_encoding.py SRC DST --config CFG

SRC is a segmentation checkpoint, for a config such as encnet_r50s_ade.py, or an
ImageNet checkpoint, which becomes a backbone for the config's init_cfg.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
try:
    from mmseg_encstdc.cli import run_converter
    from mmseg_encstdc.convert import pytorch_encoding
except ImportError as error:
    sys.exit(f'error: {error}')

if __name__ == '__main__':
    run_converter(pytorch_encoding, __doc__)
