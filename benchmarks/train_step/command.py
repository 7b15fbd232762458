"""Time and memory of a step of training: the network of a config, and the same
one built from MMSegmentation's own parts."""
import argparse
from pathlib import Path
from typing import Tuple

import record
import torch
from common import arguments
from common.clocks import rounded
from common.process_memory import available

from mmseg_encstdc.errors import InputError

from . import report, stock
from .contest import contest, quotient
from .networks import CONTENDERS, model_config, shape_of
from .shapes import Shape

__all__ = ['add_arguments', 'run']

QUICK, QUICK_ROUNDS = Shape(2, 128, 128), 3
ROUNDS = dict(cpu=7, cuda=20)
MOST_CLASSES = 255  # 255 itself is ignored
PIXEL = 3 * 4 + 8  # bytes of an image and its labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand train."""
    parser.set_defaults(run=run)
    parser.add_argument(
        'configs', nargs='+', metavar='CONFIG', help='of a segmentation network, '
        "ours or MMSegmentation's own; with --name all go into one file")
    shapes = parser.add_mutually_exclusive_group()
    shapes.add_argument(
        '--shape', metavar='BxHxW',
        help="of the batch; default: the config's batch size and crop")
    shapes.add_argument(
        '--quick', action='store_true',
        help=f'{QUICK}, and {QUICK_ROUNDS} rounds')
    parser.add_argument(
        '--classes', type=int, help="default: the config's")
    parser.add_argument(
        '--amp', action='store_true', help='autocast: float16 with a scaled '
        'loss on a GPU, bfloat16 on a CPU')
    arguments.add_arguments(
        parser, ROUNDS, 'train_cpu_CONFIG or train_GPU_CONFIG, with the shape '
        'and _amp where asked for', 'the memory, which takes a process for '
        'each network')


def run(args: argparse.Namespace) -> None:
    """Run the subcommand train."""
    device = arguments.check(args)
    if args.classes is not None and not 1 < args.classes <= MOST_CLASSES:
        raise InputError('--classes must be at least 2 and at most '
                         f'{MOST_CLASSES}, got {args.classes}')
    arguments.use(device, args)
    planned = [plan(args, config, device) for config in args.configs]
    results = []
    for config, shape, path in planned:
        print(f'{config}, {shape} ...', flush=True)
        results.append(measure(args, config, shape, device))
        print(report.train_table(results[-1]))
        together = args.name is not None and len(planned) > 1
        record.write(path.stem, dict(networks=results) if together else
                     results[-1], kind=device.type)
        print(f'written to {path}', flush=True)


def plan(args: argparse.Namespace, config: str,
         device: torch.device) -> Tuple[str, Shape, Path]:
    """A config with its shape and its result file, after a look at all three.

    Raises:
        InputError: when it cannot be measured.
    """
    model = model_config(config, args.classes)
    shape = QUICK if args.quick else (
        Shape.parse(args.shape) if args.shape else shape_of(config))
    stock.translate(model, shape)
    need, have = PIXEL * shape.batch * shape.pixels, available()
    if need > have:
        raise InputError(
            f'--shape {shape}: the batch alone needs {need / 1e9:.4g} GB of '
            f'memory, {have / 1e9:.4g} GB are available; give a smaller one')
    path = record.RESULTS / f'{args.name or default_name(args, config, device)}.json'
    record.check_writable(path)
    return config, shape, path


def default_name(args: argparse.Namespace, config: str,
                 device: torch.device) -> str:
    """train_cpu_CONFIG or train_GPU_CONFIG, with what differs from it."""
    shape = QUICK if args.quick else args.shape
    words = ['train', *arguments.device_words(device), Path(config).stem,
             *([str(shape)] if shape else []),
             *([f'{args.classes}classes'] if args.classes else []),
             *(['amp'] if args.amp else [])]
    return '_'.join(words)


def measure(args: argparse.Namespace, config: str, shape: Shape,
            device: torch.device) -> dict:
    """The result of one config."""
    job = dict(kind='train', config=config, shape=str(shape),
               classes=args.classes, device=str(device), amp=args.amp,
               threads=torch.get_num_threads())
    rounds = args.rounds or (QUICK_ROUNDS if args.quick else
                             ROUNDS[device.type])
    figures = contest({name: dict(job, contender=name) for name in CONTENDERS},
                      device.type, rounds, not args.no_memory,
                      f'--shape {shape}')
    facts = figures.pop('facts')
    ratios = quotient(figures, 'stock', 'ours')
    if device.type == 'cuda':
        ratios['total'] = quotient(figures, 'stock', 'ours', 'total')['memory']
    translation = stock.translate(model_config(config, args.classes), shape)
    return rounded(dict(
        config=config, shape=str(shape), **shape._asdict(),
        classes=next(iter(facts.values()))['classes'], amp=args.amp,
        parameters={name: each['parameters'] for name, each in facts.items()},
        left_out_of_stock=translation.dropped, rounds=rounds,
        stock_over_ours=ratios, **figures))
