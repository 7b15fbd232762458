#!/usr/bin/env python
"""Predict images: tools/predict.py CONFIG CHECKPOINT IMAGE_OR_FOLDER --out DIR

Writes DIR/labels/NAME.png (8-bit class ids, as tools/test.py --out) and
DIR/overlays/NAME.jpg. A photograph that EXIF turns has labels and overlay turned, as
viewers and OpenCV show it.
"""
import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import List, Optional, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    import cv2
    import numpy as np
    from rich.progress import track
    from torch import nn

    from mmseg_encstdc.apis import find_images, load, predict, read_image
    from mmseg_encstdc.compat import quiet
    from mmseg_encstdc.engine import check_writable, raw_ids_of
    from mmseg_encstdc.errors import InputError, one_line_errors
    from mmseg_encstdc.visualization import legend, overlay
except ImportError as error:
    sys.exit(f'error: {error}')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('source', nargs='+', help='images or folders')
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument(
        '--device', help='default: the first GPU where there is one')
    parser.add_argument(
        '--opacity', type=float, default=0.5,
        help='of the colours, 0 to 1; default: 0.5')
    parser.add_argument(
        '--raw-ids', action='store_true',
        help="write the ids of the test set's label files, not class ids")
    parser.add_argument(
        '--legend', action='store_true', help='class names under each overlay')
    return parser.parse_args()


def find_sources(sources: List[str], out: Path) -> List[Tuple[Path, Path]]:
    """Return each image of files and folders, and its output without suffix.

    Images below ``out`` are left out, because this tool wrote them.

    Raises:
        InputError: when a source does not exist, a folder holds no image, or
            two images would be written to one file.
    """
    found = []
    for source in map(Path, sources):
        if source.is_file():
            found.append((source, Path(source.stem)))
            continue
        found += [(path, path.relative_to(source).with_suffix(''))
                  for path in find_images(source, but=out)]
    stems = Counter(stem for _, stem in found)
    for path, stem in found:
        if stems[stem] > 1:
            raise InputError(f'two images are named {stem}, one of them '
                             f'{path}; predict them into two folders')
    return found


def draw(model: nn.Module, path: Path, out: Path, stem: Path, opacity: float,
         with_legend: bool, ids: Optional[np.ndarray] = None) -> None:
    """Write the label map and the overlay of one image; ``ids`` replace class ids."""
    image, label = read_image(path, model), predict(model, path)
    classes, palette = (model.dataset_meta[key]
                        for key in ('classes', 'palette'))
    picture = overlay(image[..., ::-1], label, palette, opacity)
    if with_legend:
        picture = np.vstack(
            [picture, legend(classes, palette, picture.shape[1])])
    write(out / 'labels' / stem.with_name(stem.name + '.png'),
          label if ids is None else ids[label])
    write(out / 'overlays' / stem.with_name(stem.name + '.jpg'),
          picture[..., ::-1])


def write(path: Path, picture: np.ndarray) -> None:
    """Write a label map (H, W) or BGR image (H, W, 3), or raise InputError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        raise InputError(f'{path} cannot be written; is the disk full?')


def main() -> None:
    args = parse_args()
    with one_line_errors(), quiet():
        if not 0 <= args.opacity <= 1:
            raise InputError(f'--opacity must be in [0, 1], got {args.opacity}')
        out = Path(args.out)
        check_writable(args.out)
        images = find_sources(args.source, out)
        model = load(args.checkpoint, args.config, args.device)
        ids = raw_ids_of(model.cfg) if args.raw_ids else None
        for path, stem in track(images, description='predicting'):
            draw(model, path, out, stem, args.opacity, args.legend, ids)
        print(f'{len(images)} label maps and overlays are in {out}')


if __name__ == '__main__':
    main()
