#!/usr/bin/env python
"""Write the generated demo set: OUT/{images,labels}/{train,val}/NNNN.png."""
import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    from mmseg_encstdc.errors import InputError, one_line_errors
    from mmseg_encstdc.scenes.classes import CLASSES
    from mmseg_encstdc.scenes.writer import make_scenes
except ImportError as error:
    sys.exit(f'error: {error}')

MINIMUM = dict(train=1, val=1, seed=0, workers=1)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('out', type=Path, metavar='OUT', help='folder to write')
    parser.add_argument('--train', type=int, default=320, help='scenes to train on')
    parser.add_argument('--val', type=int, default=80, help='scenes to validate on')
    parser.add_argument('--seed', type=int, default=0, help='number of the data set')
    parser.add_argument('--workers', type=int, default=2, help='number of threads')
    parser.add_argument(
        '--overwrite', action='store_true', help='replace another set in OUT')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    start = time.perf_counter()
    with one_line_errors():
        for name, minimum in MINIMUM.items():
            value = getattr(args, name)
            if value < minimum:
                raise InputError(f'--{name} must be at least {minimum}, got {value}')
        written = make_scenes(**vars(args))
    state = f'{time.perf_counter() - start:.1f} s' if written else 'already there'
    print(f'{args.out}: {args.train} train + {args.val} val scenes, '
          f'{len(CLASSES)} classes, seed {args.seed} ({state})')


if __name__ == '__main__':
    main()
