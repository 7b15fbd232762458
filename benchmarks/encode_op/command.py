"""Time and memory of the Encoding operator: MMSegmentation's, ours on each of
its backends, and what bounds them."""
import argparse
import json
import os
from pathlib import Path
from typing import List

import record
import torch
from common import arguments

from mmseg_encstdc.errors import InputError, as_input_error
from mmseg_encstdc.ops.backend import VARIABLE

from . import memory, report, timing
from .contenders import Shape

__all__ = ['add_arguments', 'run']

# EncNet: 512 channels, 32 codewords, and the maps of crops of 480, 512,
# 512 x 1024 and 769 at an eighth of the size.
CHANNELS, CODES = 512, 32
MAPS = ((60, 60), (64, 64), (64, 128), (97, 97))
BATCHES = (2, 4, 8, 16)
SIDES = (16, 32, 64, 128)  # of the maps of the sweep in N
MANY_CODES = (8, 16, 32, 64, 128, 256)  # of the sweep in K
QUICK = (Shape(2, CHANNELS, 64, 64, CODES), )
ROUNDS = dict(cpu=11, cuda=20)
DTYPES = dict(cpu=['float32'], cuda=['float32', 'bfloat16'])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand op."""
    parser.set_defaults(run=run)
    shapes = parser.add_mutually_exclusive_group()
    shapes.add_argument(
        '--shapes', nargs='+', metavar='BxDxHxWxK',
        help="default: EncNet's, and sweeps in N and K")
    shapes.add_argument(
        '--quick', action='store_true', help=f'only {QUICK[0]}')
    shapes.add_argument(
        '--plot-only', metavar='FILE.json', help='draw a result again')
    parser.add_argument(
        '--dtype', nargs='+', choices=['float32', 'bfloat16', 'float16'],
        help='of x; default: float32, on a GPU also bfloat16')
    arguments.add_arguments(
        parser, ROUNDS, 'encode_cpu or encode_GPU, with _some where --shapes '
        'or --quick choose', 'the memory on a CPU, which takes a process for '
        'each contender and shape')
    parser.add_argument('--no-plot', action='store_true')
    # What a process of encode_op.memory is asked for.
    parser.add_argument('--memory-of', help=argparse.SUPPRESS)


def default_shapes(device: torch.device) -> list:
    """EncNet's shapes and both sweeps; on a CPU larger batches of one map."""
    shapes = [Shape(2, CHANNELS, side, side, CODES) for side in SIDES]
    shapes += [Shape(2, CHANNELS, 64, 64, codes) for codes in MANY_CODES]
    for height, width in MAPS:
        whole = device.type == 'cuda' or (height, width) == (64, 64)
        shapes += [Shape(batch, CHANNELS, height, width, CODES)
                   for batch in (BATCHES if whole else BATCHES[:1])]
    return list(dict.fromkeys(shapes))


def run(args: argparse.Namespace) -> None:
    """Run the subcommand op."""
    if args.plot_only is not None:
        return plot_again(args.plot_only)
    device = arguments.check(args)
    shapes = asked_shapes(args, device)
    dtypes = list(dict.fromkeys(args.dtype or DTYPES[device.type]))
    arguments.use(device, args)
    if args.memory_of is not None:
        print(memory.used(args.memory_of, shapes[0], getattr(torch, dtypes[0])))
        return None
    for shape in shapes:
        memory.check_room(shape, device)
    path = result_file(args, device)
    if VARIABLE in os.environ:
        print(f'{VARIABLE}={os.environ[VARIABLE]} is ignored: every backend is '
              'measured')
    rows = measure_all(args, shapes, dtypes, device, path)
    print(report.table(rows))
    if not args.no_plot:
        report.plot(json.loads(path.read_text()), path.with_suffix('.png'))
    print(f'written to {path}')
    return None


def asked_shapes(args: argparse.Namespace, device: torch.device) -> List[Shape]:
    """Those of the command line, or the default."""
    if args.shapes:
        return list(dict.fromkeys(Shape.parse(text) for text in args.shapes))
    return list(QUICK) if args.quick else default_shapes(device)


def result_file(args: argparse.Namespace, device: torch.device) -> Path:
    """Where the result goes, after a look whether it can.

    Raises:
        InputError: when it or its plot cannot be written.
    """
    path = record.RESULTS / f'{args.name or default_name(device, args)}.json'
    record.check_writable(path)
    if not args.no_plot:
        record.check_writable(path.with_suffix('.png'))
    return path


def measure_all(args: argparse.Namespace, shapes: List[Shape],
                dtypes: List[str], device: torch.device,
                path: Path) -> List[dict]:
    """The rows of the result, which is written after each.

    Raises:
        KeyboardInterrupt: with what to tell the user.
    """
    rows = []
    try:
        for dtype in dtypes:
            for shape in shapes:
                rows.append(measure_shape(args, shape, device, dtype))
                # Now: a run that is cut off leaves what it has.
                record.write(path.stem, dict(shapes=rows), kind=device.type)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f'stopped; {len(rows)} of {len(dtypes) * len(shapes)} measurements '
            f'are in {path}' if rows else 'stopped') from None
    return rows


def measure_shape(args: argparse.Namespace, shape: Shape, device: torch.device,
                  dtype: str) -> dict:
    """One row of the result.

    Raises:
        InputError: when a GPU has too little memory for it.
    """
    print(f'{shape}, {dtype} ...', flush=True)
    with as_input_error(f'--shapes {shape} does not fit the GPU',
                        (torch.cuda.OutOfMemoryError, )):
        row = timing.measure(shape, device, getattr(torch, dtype),
                             args.rounds or ROUNDS[device.type])
    if device.type == 'cpu' and not args.no_memory:
        for name in row['memory']:
            if name not in row['skipped']:
                row['memory'][name] = memory.in_fresh_process(
                    name, shape, dtype, torch.get_num_threads())
    return row


def default_name(device: torch.device, args: argparse.Namespace) -> str:
    """encode_cpu, or encode_ and the name of the GPU.

    With _some at the end for fewer shapes than all, whose result stays.
    """
    some = ['some'] if args.shapes or args.quick else []
    return '_'.join(['encode', *arguments.device_words(device), *some])


def plot_again(name: str) -> None:
    """Draw the plot of a result file beside it.

    Raises:
        InputError: when the file is not there or is no result of op.
    """
    path, wanted = Path(name), 'give a file that tools/benchmark.py op wrote'
    if not path.name:
        raise InputError(f'--plot-only {name!r} is no file; {wanted}')
    with as_input_error(f'--plot-only {path}', (OSError, ValueError)):
        result = json.loads(path.read_text())
    if not isinstance(result, dict) or not result.get('shapes'):
        raise InputError(f'--plot-only {path} has no shapes; {wanted}')
    picture = path.with_suffix('.png')
    record.check_writable(picture)
    with as_input_error(
            f'--plot-only {path} is no result of op; {wanted}',
            (ArithmeticError, AttributeError, LookupError, TypeError,
             ValueError)):
        report.plot(result, picture)
    print(f'written to {picture}')
