"""Compile the CUDA kernels and the binding with nvcc and g++."""
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import List, Optional, Sequence

import torch

from mmseg_encstdc.engine import cli
from mmseg_encstdc.errors import InputError

from . import Report, Row

__all__ = ['architectures', 'check', 'release_of', 'spills_and_registers']

OPS = Path(__file__).resolve().parents[2] / 'ops'
ARCHITECTURES = (75, 80, 86, 89, 90, 100)
TENSOR_CORES = 80  # from this capability on they take bfloat16 and tf32
MULTIPLY = 'mma.sync'  # in PTX


def check(nvcc: str, archs: List[int], jobs: int) -> Report:
    """Compile every file for every architecture, and check the binding's syntax.

    Raises:
        RuntimeError: with what the compiler said, when it failed.
        InputError: when ``nvcc`` is not CUDA's.
    """
    include = toolkit(nvcc) / 'include' if shutil.which('g++') else None
    rows = compile_all(nvcc, archs, jobs)
    if include is None:
        print('skipped: binding.cpp was not checked, there is no g++')
    else:
        check_binding(include)
        print('binding.cpp: the syntax is right')
    return Report(rows, [fault for row in rows for fault in faults(row)])


def call(*command: str) -> subprocess.CompletedProcess:
    """Run a compiler.

    Raises:
        InputError: when it is no program.
    """
    with cli.blamed_on(f'{command[0]} cannot be run', (OSError, )):
        return subprocess.run(command, capture_output=True, text=True)


def architectures(nvcc: str, asked: Optional[Sequence[int]]) -> List[int]:
    """Return the compute capabilities to compile for.

    Raises:
        InputError: when nvcc does not know one that was asked for.
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


def compile_all(nvcc: str, archs: List[int], jobs: int) -> List[Row]:
    """Return the rows of all files; the first error ends the rest."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(compile_file, nvcc, file, arch)
                   for arch in archs for file in sorted(OPS.rglob('*.cu'))]
        try:
            return [job.result() for job in waiting]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def compile_file(nvcc: str, file: Path, arch: int) -> Row:
    """Compile one file for one architecture.

    Raises:
        RuntimeError: with what the compiler said, when it failed.
        InputError: when it reported no registers.
    """
    name, target = file.relative_to(OPS).as_posix(), f'sm_{arch}'
    with tempfile.TemporaryDirectory() as folder:
        done = call(
            nvcc, '-std=c++17', '-O3', f'-arch={target}', f'-I{OPS}', '-Xptxas',
            '-v', '--keep', '--keep-dir', folder, '-c', str(file), '-o',
            f'{folder}/out.o')
        if done.returncode:
            raise RuntimeError(f'{name} for {target}:\n{done.stderr}')
        ptx = ''.join(f.read_text() for f in Path(folder).glob('*.ptx'))
    spilled, registers = spills_and_registers(done.stderr)
    if registers is None:
        raise InputError(f'{nvcc} reported no registers of {name} for '
                         f'{target}, as the nvcc of CUDA does')
    return Row(name, target, done.stderr.count('Compiling entry'), registers,
               spilled, None, ptx.count(MULTIPLY))


def spills_and_registers(log: str) -> tuple:
    """Return the spilled bytes of all kernels in a log of ptxas, and the largest
    number of registers; None where it names none."""
    registers = map(int, re.findall(r'Used (\d+) registers', log))
    return (sum(map(int, re.findall(r'(\d+) bytes spill', log))),
            max(registers, default=None))


def faults(row: Row) -> List[str]:
    """Return the faults of a file. Below TENSOR_CORES it only has to compile."""
    if int(row.target[3:]) < TENSOR_CORES:
        return []
    found, where = [], f'{row.kernels} for {row.target}'
    if row.spilled_bytes:
        found.append(f'{where} spills {row.spilled_bytes} bytes')
    if not row.tensor_core_instructions:
        found.append(f'{where} has no tensor-core instructions')
    return found


def toolkit(nvcc: str) -> Path:
    """Return the folder of the CUDA toolkit; nvcc may be a wrapper elsewhere.

    Raises:
        InputError: when nvcc does not say.
    """
    said = call(nvcc, '--dryrun', '-c', 'none.cu').stderr
    found = re.search(r'^#\$ TOP=(.+)$', said, re.M)
    if not found:
        raise InputError(f'{nvcc} --dryrun names no toolkit (TOP=), as the '
                         'nvcc of CUDA does')
    return Path(found.group(1))


def check_binding(include: Path) -> None:
    """Check the syntax of ops/binding.cpp.

    Raises:
        RuntimeError: with what the compiler said.
    """
    torch_include = Path(torch.__file__).parent / 'include'
    folders = (torch_include, torch_include / 'torch/csrc/api/include', include)
    # A CPU build of PyTorch has no cuda_cmake_macros.h.
    done = call(
        'g++', '-std=c++17', '-fsyntax-only', '-Wall', '-Werror',
        '-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE', f'-I{OPS}',
        *(word for folder in folders for word in ('-isystem', str(folder))),
        str(OPS / 'binding.cpp'))
    if done.returncode:
        raise RuntimeError(f'binding.cpp:\n{done.stderr}')


def release_of(nvcc: str) -> str:
    """Return the version of nvcc.

    Raises:
        InputError: when it does not say.
    """
    found = re.search(r'release (\S+),', call(nvcc, '--version').stdout)
    if not found:
        raise InputError(f'--record: {nvcc} --version names no release')
    return found.group(1)
