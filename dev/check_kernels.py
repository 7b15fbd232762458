#!/usr/bin/env python
"""Compile the CUDA and the Triton kernels for every GPU; this needs no GPU.

Prints, for each kernel and GPU, the registers, spills, shared memory and
tensor-core instructions that the compiler reports, and checks the syntax of the
CUDA binding against the headers of the installed PyTorch. Ends with 1 if a kernel
does not compile, spills, takes more shared memory than a block has, or multiplies
matrices without tensor cores. Prints a line for each compiler that is not installed
(nvcc, g++, triton), and skips its part.
"""
import argparse
import shutil
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import List, Tuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]
try:
    import record
    from kernel_checks import cuda, triton
    from prettytable import PrettyTable

    from mmseg_encstdc.errors import InputError, one_line_errors
except ImportError as error:
    sys.exit(f'error: {error}')
except KeyboardInterrupt:
    sys.exit(130)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--arch', nargs='+', type=int, metavar='XY', help='compute '
        f'capabilities, default: those of {cuda.ARCHITECTURES} that nvcc knows, '
        f'and for Triton {" ".join(triton.TARGETS)}')
    parser.add_argument('--jobs', type=int, default=2, help='default: 2')
    parser.add_argument(
        '--record', action='store_true',
        help='write benchmarks/results/kernels.json')
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    """Compile, print a table for each compiler, and end with the faults."""
    nvcc, versions, rows, faults = shutil.which('nvcc'), {}, [], []
    archs = cuda.architectures(nvcc, args.arch) if nvcc else []
    targets = [name for name, target in triton.TARGETS.items()
               if not args.arch or target.arch in args.arch]
    with_triton = find_spec('triton') is not None
    if args.record:
        versions = dict(nvcc=cuda.release(nvcc) if nvcc else None,
                        triton=version('triton') if with_triton else None)
        record.check_writable(record.RESULTS / 'kernels.json')
    if nvcc:
        show(cuda.check(nvcc, archs, args.jobs), rows, faults)
    else:
        print('skipped: the CUDA kernels were not compiled, there is no nvcc')
    if with_triton:
        show(triton.check(targets, args.jobs), rows, faults)
    else:
        print('skipped: the Triton kernels were not compiled, triton is not '
              'installed')
    if args.record:
        record.write('kernels', dict(
            versions, kernels=[row._asdict() for row in rows]), kind='cpu')
    if faults:
        sys.exit('error: ' + '\n'.join(faults))


def show(found: Tuple[List[cuda.Row], List[str]], rows: List[cuda.Row],
         faults: List[str]) -> None:
    """Print the rows of a compiler; append its rows and faults to the lists."""
    table = PrettyTable(list(cuda.Row._fields), none_format='-')
    table.add_rows(found[0])
    print(table)
    rows += found[0]
    faults += found[1]


def main() -> None:
    args = parse_args()
    try:
        with one_line_errors():
            if args.jobs < 1:
                raise InputError(f'--jobs must be at least 1, got {args.jobs}')
            check(args)
    except RuntimeError as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
