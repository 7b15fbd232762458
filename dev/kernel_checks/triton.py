"""Compile the Triton kernels ahead of time, for GPUs that are not present.

Calls the forward and backward functions of the operators with meta tensors, which
have a shape and no data. Each launch compiles its kernel for the types, the
divisibility by 16 and the constants of its arguments, as a real launch does, and
runs nothing.

Only :func:`compile_only` depends on internals of Triton, those of 3.9: the driver that
names the GPU, and JITFunction.run with its argument ``warmup``. It sets
torch.version.hip too, because the operators read it.
"""
import io
import multiprocessing
import os
import re
import tempfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)
from unittest.mock import patch

import torch

from .cuda import Row, spills_and_registers

__all__ = ['OPERATORS', 'TARGETS', 'Operator', 'check']


class Target(NamedTuple):
    """Describe a GPU as Triton does."""
    backend: str
    arch: object  # int for CUDA
    warp_size: int
    shared_kib: int  # limit of shared memory of a block


TARGETS = {
    'sm_80': Target('cuda', 80, 32, 163),
    'sm_86': Target('cuda', 86, 32, 99),
    'sm_89': Target('cuda', 89, 32, 99),
    'sm_90': Target('cuda', 90, 32, 227),
    'sm_100': Target('cuda', 100, 32, 227),
    'gfx942': Target('hip', 'gfx942', 64, 64),
}
# In PTX for compute capability 8.x, 9.0 and 10.0, and in the assembly of AMD.
MULTIPLY = re.compile(r'mma\.sync|wgmma\.mma_async|tcgen05\.mma|v_mfma')
ENVIRONMENT = {'TRITON_ALWAYS_COMPILE': '1', 'TRITON_DUMP_PTXAS_LOG': '1',
               'TRITON_INTERPRET': '0'}

# --- What is compiled -----------------------------------------------------------

FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
CONTIGUOUS, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
# B, D, H, W and K: EncNet's, the largest K, and numbers not divisible by a block size.
ENCODE = ((FLOAT32, (2, 512, 64, 64, 32), CONTIGUOUS),
          (BFLOAT16, (2, 512, 64, 64, 32), CONTIGUOUS),
          (BFLOAT16, (2, 512, 64, 64, 32), CHANNELS_LAST),
          (FLOAT32, (2, 512, 64, 64, 256), CONTIGUOUS),
          (BFLOAT16, (2, 512, 64, 64, 256), CONTIGUOUS),
          (FLOAT32, (1, 37, 5, 9, 5), CONTIGUOUS),
          (FLOAT16, (1, 37, 5, 9, 5), CONTIGUOUS))
# B, C, h, w, H and W: EncNet on ADE20K, STDC on Cityscapes, and labels that are
# smaller than the logits.
CROSS_ENTROPY = ((FLOAT32, (2, 150, 64, 64, 512, 512), CONTIGUOUS),
                 (BFLOAT16, (2, 19, 64, 128, 512, 1024), CHANNELS_LAST),
                 (FLOAT16, (1, 7, 9, 11, 65, 5), CONTIGUOUS))
empty = partial(torch.empty, device='meta')


def encode_calls(module: ModuleType) -> Iterator[Tuple[str, Callable]]:
    """Yield the name and the call of each pass, type, shape and layout."""
    for dtype, shape, layout in ENCODE:
        *size, codes = shape
        x = empty(size, dtype=dtype, memory_format=layout)
        arguments = (x, empty(codes, size[1]), empty(codes))
        grad, what = empty(size[0], codes, size[1]), described(dtype, layout, shape)
        yield f'forward {what}', partial(module.forward, *arguments)
        yield f'backward {what}', partial(module.backward, grad, *arguments)


def cross_entropy_calls(module: ModuleType) -> Iterator[Tuple[str, Callable]]:
    """Yield the name and the call of each pass, type, shape and layout."""
    for dtype, shape, layout in CROSS_ENTROPY:
        logits = empty(shape[:4], dtype=dtype, memory_format=layout)
        size, what = (shape[0], *shape[4:]), described(dtype, layout, shape)
        labels, values = empty(size, dtype=torch.int64), empty(size)
        yield f'forward {what}', partial(module.forward, logits, labels, False, 255)
        yield f'backward {what}', partial(
            module.backward, values, logits, labels, values, False, 255)


def described(dtype: torch.dtype, layout: torch.memory_format, shape: tuple) -> str:
    """Describe a case, such as 'bfloat16 channels_last 2x512x64x64x32'."""
    return f'{dtype} {layout} {"x".join(map(str, shape))}'.replace('torch.', '')


class Operator(NamedTuple):
    """Describe an operator whose kernels are compiled."""
    module: str  # with its functions forward and backward
    calls: Callable[[ModuleType], Iterator[Tuple[str, Callable]]]  # name and call
    multiplies: bool  # whether each call has to use tensor cores


ROOMS = 'mmseg_encstdc.ops.{}.triton'
OPERATORS = {
    'encode': Operator(ROOMS.format('encode'), encode_calls, True),
    'upsampled_cross_entropy': Operator(
        ROOMS.format('upsampled_cross_entropy'), cross_entropy_calls, False),
}

# --- The check ------------------------------------------------------------------


def check(targets: Sequence[str], jobs: int, operators: Dict[str, Operator] = OPERATORS
          ) -> Tuple[List[Row], List[str]]:
    """Compile every operator for every target; return rows and faults.

    Raises:
        RuntimeError: when the compiler ends its process.
    """
    rows, faults = [], []
    with tempfile.TemporaryDirectory() as folder, patch.dict(
            os.environ, ENVIRONMENT, TRITON_CACHE_DIR=folder), ProcessPoolExecutor(
                jobs, multiprocessing.get_context('spawn')) as pool:
        waiting = [pool.submit(compile_operator, name, operator, target)
                   for target in targets for name, operator in operators.items()]
        try:
            for job in waiting:
                for found, more in zip((rows, faults), job.result()):
                    found += more
        except BrokenProcessPool as error:
            raise RuntimeError('Triton ended its process while it compiled; its output '
                               'is above') from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return rows, faults


def compile_operator(name: str, operator: Operator,
                     target: str) -> Tuple[List[Row], List[str]]:
    """Compile the kernels of an operator in a process of the pool."""
    module, compiler = import_module(operator.module), Compiler(name, target)
    with compile_only(TARGETS[target], compiler):
        for compiler.call, call in operator.calls(module):
            compiler.multiplied = False
            call()
            if operator.multiplies and not compiler.multiplied:
                compiler.faults.append(f'{name} {compiler.call} for {target}: no '
                                       'kernel has tensor-core instructions')
    return compiler.rows(), compiler.faults


@contextmanager
def compile_only(target: Target, compiler: 'Compiler') -> Iterator[None]:
    """Let launches compile for a target and run nothing."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction
    # Triton caches kernels by device, so each target has its own device.
    device = list(TARGETS.values()).index(target)
    driver.set_active(SimpleNamespace(
        get_current_device=lambda: device,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget(*target[:3])))
    run = JITFunction.run

    def launch(kernel, *arguments, grid, warmup, **options):
        return compiler.compile(kernel.__name__, partial(
            run, kernel, *arguments, grid=grid, warmup=True, **options))

    hip = target.arch if target.backend == 'hip' else None
    with patch.object(JITFunction, 'run', launch), patch.object(
            torch.version, 'hip', hip):
        yield


class Compiler:
    """Collect reports of the kernels that the calls of an operator launch."""

    def __init__(self, operator: str, target: str):
        self.operator, self.target = operator, target
        self.call = ''  # name of the current call
        self.multiplied = False  # whether one of its kernels multiplies, or failed
        self.compiled = {}  # id -> kernel, its name and its figures
        self.faults = []

    def compile(self, name: str, launch: Callable) -> Optional[object]:
        """Return the kernel that a launch compiles; None if that fails."""
        log, where = io.StringIO(), f'{name} of {self.call} for {self.target}'
        try:
            with redirect_stdout(log):
                kernel = launch()
        except Exception as error:  # whatever a compiler raises
            # The first error of ptxas, else the last line, which is Triton's.
            lines = (re.findall(r'^ptxas.* (?:error|fatal) *:.*', str(error), re.M) or
                     str(error).strip().splitlines()[-1:] or ['no message'])
            self.faults.append(
                f'{where} does not compile: {type(error).__name__}: {lines[0]}')
            self.multiplied = True
            return None
        if id(kernel) not in self.compiled:
            figures = measured(kernel, log.getvalue())
            self.compiled[id(kernel)] = kernel, name, figures
            self.add_faults(where, kernel.asm['ttir'], *figures)
        self.multiplied |= self.compiled[id(kernel)][2][-1] > 0
        return kernel

    def add_faults(self, where: str, source: str, registers: int, spilled: int,
                   shared: int, instructions: int) -> None:
        """Record the faults of a kernel, given its Triton IR and its figures."""
        most = 1024 * TARGETS[self.target].shared_kib
        if spilled:
            self.faults.append(f'{where} spills {spilled} bytes')
        if shared > most:
            self.faults.append(f'{where} needs {shared} bytes of shared memory, a '
                               f'block has {most}')
        if 'tt.dot' in source and not instructions:
            self.faults.append(f'{where} has no tensor-core instructions')

    def rows(self) -> List[Row]:
        """Return a row for each kernel name."""
        figures = defaultdict(list)
        for _, name, each in self.compiled.values():
            figures[name].append(each)
        return [Row(f'{self.operator}: {name}', self.target, len(each), *(
            combine(column) for combine, column in zip(
                (max, sum, max, sum), zip(*each)))) for name, each in figures.items()]


def measured(kernel: Any, log: str) -> Tuple[int, int, int, int]:
    """Return registers, spilled bytes, shared bytes and tensor-core instructions.

    Args:
        kernel: compiled by Triton.
        log: output of ptxas.
    """
    if 'ptx' in kernel.asm:
        text = kernel.asm['ptx']
        spilled, registers = spills_and_registers(log)
    else:
        # Scalar registers spill to vector registers, which takes no memory. The
        # private segment is the memory of a thread.
        text = kernel.asm['amdgcn']
        spilled, registers = (int(re.search(rf'\.{name}: +(\d+)', text).group(1))
                              for name in ('private_segment_fixed_size', 'vgpr_count'))
    return registers, spilled, kernel.metadata.shared, len(MULTIPLY.findall(text))
