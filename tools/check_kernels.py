#!/usr/bin/env python
"""Compile the CUDA kernels for every architecture; this needs no GPU.

Prints, for each file and architecture, the registers and spills that the
compiler reports and the tensor-core instructions in its output, and checks the
syntax of the binding against the headers of the installed PyTorch. Ends with 1
where something does not compile, spills or has no tensor-core instructions.
Without nvcc it says so and ends with 0.
"""
import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OPS = ROOT / 'ops'
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

ARCHITECTURES = (75, 80, 86, 89, 90, 100)
TENSOR_CORES = 80  # from here on they take bfloat16 and tf32
MULTIPLY = 'mma.sync'  # in PTX


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--arch', nargs='+', type=int, default=ARCHITECTURES, metavar='XY',
        help=f'compute capabilities, default: {ARCHITECTURES}')
    parser.add_argument('--jobs', type=int, default=2, help='default: 2')
    parser.add_argument(
        '--record', action='store_true',
        help='write benchmarks/results/kernels.json')
    return parser.parse_args()


def compile_file(nvcc: str, file: Path, arch: int) -> dict:
    """A row of the table.

    Raises:
        RuntimeError: with what the compiler said, when it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [nvcc, '-std=c++17', '-O3', f'-arch=sm_{arch}', '-Xptxas', '-v',
             '--keep', '--keep-dir', folder, '-c', str(file), '-o',
             f'{folder}/out.o'], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f'{file.name} for sm_{arch}:\n{done.stderr}')
        ptx = ''.join(f.read_text() for f in Path(folder).glob('*.ptx'))
    spills = map(int, re.findall(r'(\d+) bytes spill', done.stderr))
    registers = map(int, re.findall(r'Used (\d+) registers', done.stderr))
    return dict(
        file=file.name, arch=arch, kernels=done.stderr.count('Compiling entry'),
        registers=max(registers), spilled_bytes=sum(spills),
        tensor_core_instructions=ptx.count(MULTIPLY))


def faults(row: dict) -> list:
    """What is wrong with a row. Below TENSOR_CORES kernels only compile."""
    if row['arch'] < TENSOR_CORES:
        return []
    where = f'{row["file"]} for sm_{row["arch"]}'
    found = []
    if row['spilled_bytes']:
        found.append(f'{where} spills {row["spilled_bytes"]} bytes')
    if not row['tensor_core_instructions']:
        found.append(f'{where} has no tensor-core instructions')
    return found


def toolkit(nvcc: str) -> Path:
    """The folder of the CUDA toolkit, which nvcc knows where it is a wrapper."""
    done = subprocess.run([nvcc, '--dryrun', '-c', 'none.cu'],
                          capture_output=True, text=True)
    return Path(re.search(r'^#\$ TOP=(.+)$', done.stderr, re.M).group(1))


def check_binding(cuda: Path) -> None:
    """Compile ops/binding.cpp as far as its syntax.

    Raises:
        RuntimeError: with what the compiler said.
    """
    import torch
    include = Path(torch.__file__).parent / 'include'
    folders = (include, include / 'torch/csrc/api/include', cuda / 'include')
    # A CPU build of PyTorch has no cuda_cmake_macros.h.
    done = subprocess.run(
        ['g++', '-std=c++17', '-fsyntax-only', '-Wall', '-Werror',
         '-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE',
         *(word for folder in folders for word in ('-isystem', str(folder))),
         str(OPS / 'binding.cpp')], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'binding.cpp:\n{done.stderr}')


def main() -> None:
    args = parse_args()
    nvcc = shutil.which('nvcc')
    if nvcc is None:
        print('skipped: the CUDA kernels were not compiled, there is no nvcc')
        return
    jobs = [(nvcc, file, arch)
            for arch in args.arch for file in sorted(OPS.glob('*.cu'))]
    try:
        with ThreadPoolExecutor(args.jobs) as pool:
            rows = list(pool.map(lambda job: compile_file(*job), jobs))
        check_binding(toolkit(nvcc))
    except RuntimeError as error:
        sys.exit(f'error: {error}')
    from prettytable import PrettyTable
    table = PrettyTable(list(rows[0]))
    table.add_rows([list(row.values()) for row in rows])
    print(table)
    print('binding.cpp: syntax is right')
    if args.record:
        import record
        version = subprocess.run([nvcc, '--version'], capture_output=True,
                                 text=True).stdout
        release = re.search(r'release (\S+),', version).group(1)
        record.write('kernels', dict(nvcc=release, files=rows), kind='cpu')
    found = [fault for row in rows for fault in faults(row)]
    if found:
        sys.exit('error: ' + '\n'.join(found))


if __name__ == '__main__':
    main()
