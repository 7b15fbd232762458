"""Arguments that every benchmark takes, and what they accept."""
import argparse
import os
import re
from typing import List

import torch

from mmseg_encstdc.errors import InputError

__all__ = [
    'THREADS', 'add_arguments', 'check', 'check_name', 'device_words', 'use'
]

MOST_ROUNDS = 10_000
LONGEST_NAME = 200  # bytes, of the 255 that file systems take
THREADS = 2  # of a CPU, unless told otherwise


def add_arguments(parser: argparse.ArgumentParser, rounds: dict, name: str,
                  no_memory: str) -> None:
    """Add --device, --threads, --rounds, --name and --no-memory.

    Args:
        parser (ArgumentParser): of the subcommand.
        rounds (dict): default of --rounds on 'cpu' and on 'cuda'.
        name (str): what the default of --name is.
        no_memory (str): what --no-memory leaves out.
    """
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu',
        help='cpu or cuda[:INDEX]; default: a GPU where there is one')
    parser.add_argument(
        '--threads', type=int, help=f'of a CPU; default: {THREADS}')
    parser.add_argument(
        '--rounds', type=int, help='in which the contenders take turns; '
        'default: {cpu} on a CPU, {cuda} on a GPU'.format(**rounds))
    parser.add_argument('--name', help=f'of the result; default: {name}')
    parser.add_argument(
        '--no-memory', action='store_true', help=f'leave out {no_memory}')


def check(args: argparse.Namespace) -> torch.device:
    """The device, after a look at every argument of :func:`add_arguments`.

    Raises:
        InputError: naming the argument at fault and what it accepts.
    """
    check_device(args.device)
    for name, most in (('threads', os.cpu_count()), ('rounds', MOST_ROUNDS)):
        value = getattr(args, name)
        if value is not None and not 1 <= value <= most:
            raise InputError(f'--{name} must be at least 1 and at most {most}, '
                             f'got {value}')
    if args.name is not None:
        check_name(args.name)
    return torch.device(args.device)


def use(device: torch.device, args: argparse.Namespace) -> None:
    """Make this process compute on the device, with --threads on a CPU."""
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(args.threads or THREADS)


def check_device(name: str) -> None:
    """Raise InputError unless ``name`` is a device that is there."""
    if not re.fullmatch(r'cpu|cuda(:\d+)?', name):
        raise InputError(f'--device {name} is not known; give cpu or '
                         'cuda[:INDEX]')
    count = torch.cuda.device_count()
    there = ['cpu', *(['cuda'] if count else []),
             *(f'cuda:{index}' for index in range(count))]
    if name not in there:
        raise InputError(f'--device {name} is not there; give one of '
                         f'{", ".join(there)}')


def check_name(name: str) -> None:
    """Raise InputError unless a result can be called so."""
    if name in ('', '.', '..') or '/' in name or not name.isprintable():
        raise InputError(f'--name {name!r} must be the name of a file, '
                         'without a folder')
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise InputError(f'--name must have at most {LONGEST_NAME} bytes, got '
                         f'{len(os.fsencode(name))}')


def device_words(device: torch.device) -> List[str]:
    """The device in the name of a result: cpu, or the words of the GPU's."""
    if device.type == 'cpu':
        return ['cpu']
    found = torch.cuda.get_device_name(device).lower()
    return [w for w in re.findall('[a-z0-9]+', found) if w != 'nvidia']
