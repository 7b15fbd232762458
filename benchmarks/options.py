"""Define the options that every benchmark has."""
import argparse
import os
from pathlib import Path
from typing import Callable, List, Tuple

import record
import torch

LARGEST = 2**16  # of the numbers of a shape
THREADS = 2  # of a CPU, unless told otherwise


class Parser(argparse.ArgumentParser):
    """Say in one line what is wrong, without the usage."""

    def error(self, message: str) -> None:
        self.exit(2, f'error: {message}\n')


def add_arguments(parser: argparse.ArgumentParser, rounds: int, name: str) -> None:
    """Add --device, --threads, --rounds, --name and --no-memory.

    Args:
        parser: of a subcommand.
        rounds: default of --rounds.
        name: default of --name, for the help.
    """
    parser.add_argument(
        '--device', type=device, metavar='DEVICE',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='cpu or cuda[:INDEX]; default: a GPU where there is one')
    parser.add_argument(
        '--threads', type=between(1, os.cpu_count()), metavar='N', default=THREADS,
        help=f'of a CPU; default: {THREADS}')
    parser.add_argument(
        '--rounds', type=between(1, 10_000), metavar='N', default=rounds,
        help=f'measured for each contender; default: {rounds}')
    parser.add_argument(
        '--name', type=file_name, help=f'of the result; default: {name}')
    parser.add_argument('--no-memory', action='store_true', help='measure time alone')


def between(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of integers from ``low`` to ``high``."""
    def read(text: str) -> int:
        if text.isdecimal() and len(text) <= 10 and low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(
            f'must be at least {low} and at most {high}, got {text!r}')
    return read


def numbers(text: str, form: str) -> Tuple[int, ...]:
    """Read a shape such as 2x512x1024; ``form`` is BxHxW or alike."""
    words = text.split('x')
    if len(words) == len(form.split('x')) and all(
            word.isdecimal() and len(word) <= 5 and 1 <= int(word) <= LARGEST
            for word in words):
        return tuple(map(int, words))
    raise argparse.ArgumentTypeError(
        f'{text!r} is no shape; give {form}, whole numbers of at least 1 and at most '
        f'{LARGEST}')


def device(text: str) -> torch.device:
    """Parse the name of an existing device; return a GPU with its index."""
    count = torch.cuda.device_count()
    there = ['cpu', *(['cuda'] if count else []),
             *(f'cuda:{index}' for index in range(count))]
    if text not in there:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not there; give one of {", ".join(there)}')
    return torch.device('cuda:0' if text == 'cuda' else text)


def file_name(text: str) -> str:
    """Read the name of a file, without a folder."""
    if text in ('', '.', '..') or '/' in text or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f'{text!r} must be the name of a file, without a folder')
    return text


def use(device: torch.device, threads: int) -> None:
    """Select a device for this process, and the number of threads of a CPU."""
    if device.type == 'cuda':  # Triton and events use the current device
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(threads)


def result_file(args: argparse.Namespace, first: str, *words: str) -> Path:
    """Return the result file, named by --name or else by ``first`` and ``words``.

    Raises:
        InputError: when it cannot be written.
    """
    default: List[str] = [first, *record.device_words(args.device), *words]
    path = record.RESULTS / f'{args.name or "_".join(filter(None, default))}.json'
    record.check_writable(path)
    return path
