#!/usr/bin/env python
"""Compile the CUDA kernels for every architecture; this needs no GPU.

Prints, for each file and architecture, the registers and spills that the
compiler reports and the tensor-core instructions in its output, and checks the
syntax of the binding against the headers of the installed PyTorch. Ends with 1
where something does not compile or spills, or where kernels that multiply
matrices have no tensor-core instructions.
Without nvcc it says so and ends with 0; without g++ it leaves the binding out.
"""
import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import List, Optional, Sequence

ROOT = Path(__file__).resolve().parents[1]
OPS = ROOT / 'ops'
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]
try:
    import record
    import torch
    from prettytable import PrettyTable

    from mmseg_encstdc.errors import InputError, as_input_error, one_line_errors
except ImportError as error:
    sys.exit(f'error: {error}')
except KeyboardInterrupt:
    sys.exit(130)
if ROOT.name == '.mim':  # installed: results are for whoever measures
    record.RESULTS = Path('work_dirs/benchmark')

ARCHITECTURES = (75, 80, 86, 89, 90, 100)
TENSOR_CORES = 80  # from here on they take bfloat16 and tf32
MULTIPLY = 'mma.sync'  # in PTX
# How the names of files begin whose kernels multiply no matrices; all others must.
WITHOUT_PRODUCTS = ('cross_entropy_', 'kth_largest')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--arch', nargs='+', type=int, metavar='XY', help='compute '
        f'capabilities, default: those of {ARCHITECTURES} that nvcc knows')
    parser.add_argument('--jobs', type=int, default=2, help='default: 2')
    parser.add_argument(
        '--record', action='store_true',
        help='write benchmarks/results/kernels.json')
    return parser.parse_args()


def call(*command: str) -> subprocess.CompletedProcess:
    """Run a compiler.

    Raises:
        InputError: when it is no program.
    """
    with as_input_error(f'{command[0]} cannot be run', (OSError, )):
        return subprocess.run(command, capture_output=True, text=True)


def architectures(nvcc: str, asked: Optional[Sequence[int]]) -> List[int]:
    """What to compile for.

    Raises:
        InputError: when nvcc does not know what was asked for.
    """
    listed = call(nvcc, '--list-gpu-arch').stdout
    known = [int(arch) for arch in re.findall(r'^compute_(\d+)$', listed, re.M)]
    if not known:
        raise InputError(f'{nvcc} --list-gpu-arch names no architecture; give '
                         'a PATH with the nvcc of CUDA 11.8 or later')
    for arch in asked or ():
        if arch not in known:
            raise InputError(f'--arch {arch} is not known to {nvcc}; give some '
                             f'of {" ".join(map(str, sorted(known)))}')
    return list(dict.fromkeys(
        asked or [arch for arch in ARCHITECTURES if arch in known]))


def compile_file(nvcc: str, file: Path, arch: int) -> dict:
    """A row of the table.

    Raises:
        RuntimeError: with what the compiler said, when it failed.
        InputError: when it said nothing of registers.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = call(
            nvcc, '-std=c++17', '-O3', f'-arch=sm_{arch}', '-Xptxas', '-v',
            '--keep', '--keep-dir', folder, '-c', str(file), '-o',
            f'{folder}/out.o')
        if done.returncode:
            raise RuntimeError(f'{file.name} for sm_{arch}:\n{done.stderr}')
        ptx = ''.join(f.read_text() for f in Path(folder).glob('*.ptx'))
    spills = map(int, re.findall(r'(\d+) bytes spill', done.stderr))
    registers = list(map(int, re.findall(r'Used (\d+) registers', done.stderr)))
    if not registers:
        raise InputError(f'{nvcc} reported no registers of {file.name} for '
                         f'sm_{arch}, as the nvcc of CUDA does')
    return dict(
        file=file.name, arch=arch, kernels=done.stderr.count('Compiling entry'),
        registers=max(registers), spilled_bytes=sum(spills),
        tensor_core_instructions=ptx.count(MULTIPLY))


def compile_all(nvcc: str, archs: List[int], jobs: int) -> List[dict]:
    """The rows of the table; at the first error the rest is left."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(compile_file, nvcc, file, arch)
                   for arch in archs for file in sorted(OPS.glob('*.cu'))]
        try:
            return [job.result() for job in waiting]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def faults(row: dict) -> list:
    """What is wrong with a row. Below TENSOR_CORES kernels only compile."""
    if row['arch'] < TENSOR_CORES:
        return []
    where = f'{row["file"]} for sm_{row["arch"]}'
    found = []
    if row['spilled_bytes']:
        found.append(f'{where} spills {row["spilled_bytes"]} bytes')
    multiplies = not row['file'].startswith(WITHOUT_PRODUCTS)
    if multiplies and not row['tensor_core_instructions']:
        found.append(f'{where} has no tensor-core instructions')
    return found


def toolkit(nvcc: str) -> Path:
    """The folder of the CUDA toolkit, which nvcc knows where it is a wrapper.

    Raises:
        InputError: when it does not say.
    """
    said = call(nvcc, '--dryrun', '-c', 'none.cu').stderr
    found = re.search(r'^#\$ TOP=(.+)$', said, re.M)
    if not found:
        raise InputError(f'{nvcc} --dryrun names no toolkit (TOP=), as the '
                         'nvcc of CUDA does')
    return Path(found.group(1))


def check_binding(cuda: Path) -> None:
    """Compile ops/binding.cpp as far as its syntax.

    Raises:
        RuntimeError: with what the compiler said.
    """
    include = Path(torch.__file__).parent / 'include'
    folders = (include, include / 'torch/csrc/api/include', cuda / 'include')
    # A CPU build of PyTorch has no cuda_cmake_macros.h.
    done = call(
        'g++', '-std=c++17', '-fsyntax-only', '-Wall', '-Werror',
        '-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE',
        *(word for folder in folders for word in ('-isystem', str(folder))),
        str(OPS / 'binding.cpp'))
    if done.returncode:
        raise RuntimeError(f'binding.cpp:\n{done.stderr}')


def release_of(nvcc: str) -> str:
    """Its version.

    Raises:
        InputError: when it does not say.
    """
    found = re.search(r'release (\S+),', call(nvcc, '--version').stdout)
    if not found:
        raise InputError(f'--record: {nvcc} --version names no release')
    return found.group(1)


def check(args: argparse.Namespace, nvcc: str) -> None:
    """Compile, print the table, and end the program where there are faults."""
    archs = architectures(nvcc, args.arch)
    release = release_of(nvcc) if args.record else None
    if release is not None:
        record.check_writable(record.RESULTS / 'kernels.json')
    cuda = toolkit(nvcc) if shutil.which('g++') else None
    rows = compile_all(nvcc, archs, args.jobs)
    if cuda is not None:
        check_binding(cuda)
    table = PrettyTable(list(rows[0]))
    table.add_rows([list(row.values()) for row in rows])
    print(table)
    print('skipped: binding.cpp was not checked, there is no g++'
          if cuda is None else 'binding.cpp: syntax is right')
    if release is not None:
        record.write('kernels', dict(nvcc=release, files=rows), kind='cpu')
    found = [fault for row in rows for fault in faults(row)]
    if found:
        sys.exit('error: ' + '\n'.join(found))


def main() -> None:
    args = parse_args()
    try:
        with one_line_errors():
            if args.jobs < 1:
                raise InputError(f'--jobs must be at least 1, got {args.jobs}')
            nvcc = shutil.which('nvcc')
            if nvcc is None:
                print('skipped: the CUDA kernels were not compiled, there is '
                      'no nvcc')
                return
            check(args, nvcc)
    except RuntimeError as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        sys.exit(130)


if __name__ == '__main__':
    main()
