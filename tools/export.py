#!/usr/bin/env python
"""Export a network to ONNX: tools/export.py CONFIG CHECKPOINT OUT.onnx

The file takes a normalised image (1, 3, H, W), or of as many channels as the backbone
takes, and gives logits (1, C, H, W) of its size. It is kept if it passes onnx's checker
and gives PyTorch's output for random images. It has no auxiliary and detail heads.
"""
import argparse
import re
import sys
from pathlib import Path
from typing import Optional, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    from mmengine.config import Config, DictAction

    from mmseg_encstdc.apis import load
    from mmseg_encstdc.apis.exporting import ExportError, export_onnx, left_out
    from mmseg_encstdc.compat import quiet
    from mmseg_encstdc.engine import check_writable, load_config
    from mmseg_encstdc.errors import InputError, as_input_error, one_line_errors
except ImportError as error:
    sys.exit(f'error: {error}')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', help='file to write, NAME.onnx')
    parser.add_argument(
        '--shape', metavar='HxW', help='of the image, pixels; default: '
        'crop_size of the config')
    parser.add_argument(
        '--dynamic', action='store_true',
        help='let batch, height and width change')
    parser.add_argument(
        '--labels', action='store_true',
        help='give class ids (1, H, W), int64, instead of logits')
    parser.add_argument(
        '--with-preprocess', action='store_true',
        help='take an image as OpenCV reads it, (1, H, W, 3) uint8 BGR, and '
        'normalise it in the file; other bands and types as the config says, types '
        'other than uint8 as float32')
    parser.add_argument(
        '--opset', type=int, default=17, help='13 to 20; default: 17')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override config values')
    return parser.parse_args()


def image_shape(text: Optional[str], cfg: Config) -> Tuple[int, int]:
    """Return (height, width) of --shape, or of the config's ``crop_size``.

    Raises:
        InputError: when --shape is not HxW, or there is neither.
    """
    if text is None:
        if 'crop_size' not in cfg:
            raise InputError('the config has no crop_size; give --shape HxW')
        return tuple(cfg.crop_size)
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
    if not match:
        raise InputError('--shape must be HEIGHTxWIDTH in pixels, such as '
                         f'512x1024, got {text}')
    return tuple(map(int, match.groups()))


def export(args: argparse.Namespace) -> None:
    """Write the ONNX file and print how it compares with PyTorch."""
    out = Path(args.out)
    if out.suffix != '.onnx':
        raise InputError(f'OUT must end with .onnx, got {args.out}')
    cfg = load_config(args.config, args.cfg_options)
    shape = image_shape(args.shape, cfg)
    check_writable(str(out.parent))
    model = load(args.checkpoint, cfg, 'cpu')
    report = export_onnx(model, out, shape, args.labels, args.with_preprocess,
                         args.dynamic, args.opset)
    shapes = ' and '.join('x'.join(map(str, s)) for s in report['shapes'])
    if args.labels:
        found = f'{report["difference"]:.2%} of the labels differ'
    else:
        found = (f'largest difference {report["difference"]:.2g}, largest '
                 f'logit {report["largest"]:.2g}')
    print(f'{out}: {found} from PyTorch, at {shapes} by {report["by"]}')
    steps = left_out(model)
    if steps:
        print(f'not in the file, from the test pipeline: {", ".join(steps)}')


def main() -> None:
    args = parse_args()
    with one_line_errors(), quiet(), as_input_error(args.out, (ExportError, )):
        export(args)


if __name__ == '__main__':
    main()
