"""Time and memory of the Encoding operator: MMSegmentation's, ours on each of
its paths, and what bounds them."""
import argparse
import json
import re
from pathlib import Path

import record
import torch

from mmseg_encstdc.engine import cli
from mmseg_encstdc.errors import InputError

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
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu',
        help='cpu or cuda[:INDEX]; default: a GPU where there is one')
    parser.add_argument(
        '--dtype', nargs='+', choices=['float32', 'bfloat16', 'float16'],
        help='of x; default: float32, on a GPU also bfloat16')
    parser.add_argument(
        '--threads', type=int, help='of a CPU; default: 2')
    parser.add_argument(
        '--rounds', type=int, help='in which the contenders take turns; '
        'default: {cpu} on a CPU, {cuda} on a GPU'.format(**ROUNDS))
    parser.add_argument(
        '--name', help='of the result; default: encode_cpu or encode_GPU')
    parser.add_argument(
        '--no-memory', action='store_true',
        help='leave out the memory on a CPU, which takes a process for each '
        'contender and shape')
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


def check(args: argparse.Namespace) -> torch.device:
    """The device, after a look at every argument.

    Raises:
        InputError: naming the argument at fault and what it accepts.
    """
    found = re.fullmatch(r'(cpu|cuda(:\d+)?)', args.device)
    if not found:
        raise InputError(f'--device {args.device} is not known; give cpu or '
                         'cuda[:INDEX]')
    device = torch.device(args.device)
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f'--device {args.device} is not there, of '
                         f'{torch.cuda.device_count()} GPUs; give cpu or one '
                         'that is')
    for name in ('threads', 'rounds'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f'--{name} must be at least 1, got {value}')
    if args.name is not None and Path(args.name).name != args.name:
        raise InputError(f'--name {args.name} must be the name of a file, '
                         'without a folder')
    return device


def run(args: argparse.Namespace) -> None:
    """Run the subcommand op."""
    if args.plot_only:
        return plot_again(Path(args.plot_only))
    device = check(args)
    if args.shapes:
        shapes = [Shape.parse(text) for text in args.shapes]
    else:
        shapes = QUICK if args.quick else default_shapes(device)
    dtypes = args.dtype or DTYPES[device.type]
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(args.threads or 2)
    if args.memory_of:
        print(memory.used(args.memory_of, shapes[0], getattr(torch, dtypes[0])))
        return None
    rows = []
    for dtype in dtypes:
        for shape in shapes:
            rows.append(measure_shape(args, shape, device, dtype))
            # Now: a run that is cut off leaves what it has.
            path = record.write(args.name or default_name(device),
                                dict(shapes=rows), kind=device.type)
    print(report.table(rows))
    if not args.no_plot:
        report.plot(json.loads(path.read_text()), path.with_suffix('.png'))
    print(f'written to {path}')
    return None


def measure_shape(args: argparse.Namespace, shape: Shape, device: torch.device,
                  dtype: str) -> dict:
    """One row of the result."""
    print(f'{shape}, {dtype} ...', flush=True)
    row = timing.measure(shape, device, getattr(torch, dtype),
                         args.rounds or ROUNDS[device.type])
    if device.type == 'cpu' and not args.no_memory:
        for name in row['memory']:
            if name not in row['skipped']:
                row['memory'][name] = memory.in_fresh_process(
                    name, shape, dtype, torch.get_num_threads())
    return row


def default_name(device: torch.device) -> str:
    """encode_cpu, or encode_ and the name of the GPU."""
    if device.type == 'cpu':
        return 'encode_cpu'
    words = re.findall('[a-z0-9]+', torch.cuda.get_device_name(device).lower())
    return '_'.join(['encode', *(w for w in words if w != 'nvidia')])


def plot_again(path: Path) -> None:
    """Draw the plot of a result file beside it.

    Raises:
        InputError: when the file is not there or is no result of op.
    """
    with cli.blamed_on(f'--plot-only {path}', (OSError, ValueError)):
        result = json.loads(path.read_text())
    if not isinstance(result, dict) or not result.get('shapes'):
        raise InputError(f'--plot-only {path} has no shapes; give a file that '
                         'tools/benchmark.py op wrote')
    report.plot(result, path.with_suffix('.png'))
    print(f'written to {path.with_suffix(".png")}')
