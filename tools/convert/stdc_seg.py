#!/usr/bin/env python
"""Convert a checkpoint of STDC-Seg: tools/convert/stdc_seg.py SRC DST --config CFG

SRC is a segmentation checkpoint, for a config such as stdc1_seg50_cityscapes.py, or an
ImageNet checkpoint, which becomes the network of stdc1_imagenet.py or, with a
segmentation config, a backbone for its init_cfg.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
try:
    from mmseg_encstdc.cli import run_converter
    from mmseg_encstdc.convert import stdc_seg
except ImportError as error:
    sys.exit(f'error: {error}')

if __name__ == '__main__':
    run_converter(stdc_seg, __doc__)
