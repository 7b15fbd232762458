"""Compile the CUDA kernels with nvcc, and check the binding's syntax with g++."""
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

import torch

from mmseg_encstdc.errors import InputError, as_input_error

__all__ = ['Row', 'architectures', 'check', 'release', 'spills_and_registers']

OPS = Path(__file__).resolve().parents[2] / 'ops'
ARCHITECTURES = (75, 80, 86, 89, 90, 100)
TENSOR_CORES = 80  # first capability with tensor cores for bfloat16 and tf32
MULTIPLY = 'mma.sync'  # in PTX


class Row(NamedTuple):
    """Hold what a compiler reports of kernels for one GPU, a row of the table."""
    kernels: str  # a file, or an operator and its kernel
    target: str  # sm_90, gfx942
    compiled: int  # kernels of a file, or variants of a kernel
    registers: int  # of a thread, the largest
    spilled_bytes: int  # of all
    shared_bytes: Optional[int]  # of a block, the largest; nvcc does not say
    tensor_core_instructions: int  # of all


def check(nvcc: str, archs: List[int], jobs: int) -> Tuple[List[Row], List[str]]:
    """Compile every file for every architecture; return rows and faults.

    Raises:
        RuntimeError: with the output of a compiler, when it failed.
        InputError: when ``nvcc`` is not CUDA's.
    """
    toolkit, = ask(nvcc, r'^#\$ TOP=(.+)$', '--dryrun', '-c', 'none.cu')
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(compile_file, nvcc, file, arch)
                   for arch in archs for file in sorted(OPS.rglob('*.cu'))]
        try:
            rows = [job.result() for job in waiting]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    check_binding(Path(toolkit, 'include'))
    return rows, [fault for row in rows for fault in faults(row)]


def run(*command: str) -> subprocess.CompletedProcess:
    """Run a compiler; raise InputError if it cannot be run."""
    with as_input_error(f'{command[0]} cannot be run', (OSError, )):
        return subprocess.run(command, capture_output=True, text=True)


def ask(nvcc: str, pattern: str, *options: str) -> List[str]:
    """Return all matches in the output of nvcc; raise InputError if there is none."""
    done = run(nvcc, *options)
    found = re.findall(pattern, done.stdout + done.stderr, re.M)
    if not found:
        raise InputError(f'{nvcc} {" ".join(options)} printed nothing like '
                         f'{pattern}, as the nvcc of CUDA 11.8 and later does')
    return found


def release(nvcc: str) -> str:
    """Return the version of nvcc."""
    return ask(nvcc, r'release (\S+),', '--version')[0]


def architectures(nvcc: str, asked: Optional[Sequence[int]]) -> List[int]:
    """Return the compute capabilities to compile for.

    Raises:
        InputError: when nvcc does not know one that was asked for.
    """
    known = list(map(int, ask(nvcc, r'^compute_(\d+)$', '--list-gpu-arch')))
    for arch in asked or ():
        if arch not in known:
            raise InputError(f'--arch {arch} is not known to {nvcc}; give some '
                             f'of {" ".join(map(str, sorted(known)))}')
    return [arch for arch in asked or ARCHITECTURES if arch in known]


def compile_file(nvcc: str, file: Path, arch: int) -> Row:
    """Compile one file for one architecture.

    Raises:
        RuntimeError: with the output of nvcc, when it failed.
        InputError: when it reported no registers.
    """
    name, target = file.relative_to(OPS).as_posix(), f'sm_{arch}'
    with tempfile.TemporaryDirectory() as folder:
        done = run(
            nvcc, '-std=c++17', '-O3', f'-arch={target}', '-Xptxas', '-v',
            '--keep', '--keep-dir', folder, '-c', str(file), '-o', f'{folder}/out.o')
        ptx = ''.join(each.read_text() for each in Path(folder).glob('*.ptx'))
    if done.returncode:
        raise RuntimeError(f'{name} for {target}:\n{done.stderr}')
    spilled, registers = spills_and_registers(done.stderr)
    if registers is None:
        raise InputError(f'{nvcc} reported no registers of {name} for '
                         f'{target}, as the nvcc of CUDA does')
    return Row(name, target, done.stderr.count('Compiling entry'), registers,
               spilled, None, ptx.count(MULTIPLY))


def spills_and_registers(log: str) -> Tuple[int, Optional[int]]:
    """Return the spilled bytes and the most registers in a log of ptxas.

    Bytes are summed over the kernels; registers are None if the log has none.
    """
    registers = map(int, re.findall(r'Used (\d+) registers', log))
    return (sum(map(int, re.findall(r'(\d+) bytes spill', log))),
            max(registers, default=None))


def faults(row: Row) -> List[str]:
    """Return the faults of a file; none for GPUs below TENSOR_CORES."""
    if int(row.target[3:]) < TENSOR_CORES:
        return []
    where = f'{row.kernels} for {row.target}'
    return ([f'{where} spills {row.spilled_bytes} bytes'] * bool(row.spilled_bytes) +
            [f'{where} has no tensor-core instructions'] *
            (not row.tensor_core_instructions))


def check_binding(cuda_include: Path) -> None:
    """Check the syntax of ops/binding.cpp, if there is g++.

    Raises:
        RuntimeError: with the output of g++, when it failed.
    """
    if not shutil.which('g++'):
        print('skipped: binding.cpp was not checked, there is no g++')
        return
    include = Path(torch.__file__).parent / 'include'
    folders = (include, include / 'torch/csrc/api/include', cuda_include)
    # A CPU build of PyTorch has no cuda_cmake_macros.h.
    done = run(
        'g++', '-std=c++17', '-fsyntax-only', '-Wall', '-Werror',
        '-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE',
        *(word for folder in folders for word in ('-isystem', str(folder))),
        str(OPS / 'binding.cpp'))
    if done.returncode:
        raise RuntimeError(f'binding.cpp:\n{done.stderr}')
    print('binding.cpp: the syntax is right')
