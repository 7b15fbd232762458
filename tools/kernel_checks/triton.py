"""Compile the Triton kernels ahead of time, for GPUs that are not there.

Calls the forward and backward functions of the operators with meta tensors, which
have a shape and no data. A launch then compiles the kernel for the types, the
divisibility by 16 and the constants of its arguments, as a real launch does, and
runs nothing.

What depends on Triton's internals is in :func:`compile_only`, written for 3.9: the
driver that names the GPU, and JITFunction.run with its argument ``warmup``.
"""
import io
import multiprocessing
import os
import re
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib import import_module
from itertools import groupby
from types import ModuleType, SimpleNamespace
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import torch

from . import Report, Row
from .cuda import spills_and_registers

__all__ = ['OPERATORS', 'TARGETS', 'Operator', 'check', 'targets']

TYPES = (torch.float32, torch.bfloat16, torch.float16)
# In PTX for compute capability 8.x, 9.0 and 10.0, and in the assembly of AMD.
MULTIPLY = re.compile(r'mma\.sync|wgmma\.mma_async|tcgen05\.mma|v_mfma')
ENVIRONMENT = {
    'TRITON_ALWAYS_COMPILE': '1', 'TRITON_DUMP_PTXAS_LOG': '1',
    'TRITON_INTERPRET': '0'
}


class Target(NamedTuple):
    """A GPU as Triton names it."""
    backend: str
    arch: object  # int for CUDA
    warp_size: int
    shared_kib: int  # what a block may have


TARGETS = {
    'sm_80': Target('cuda', 80, 32, 163),
    'sm_86': Target('cuda', 86, 32, 99),
    'sm_89': Target('cuda', 89, 32, 99),
    'sm_90': Target('cuda', 90, 32, 227),
    'sm_100': Target('cuda', 100, 32, 227),
    'gfx942': Target('hip', 'gfx942', 64, 64),
}


class Operator(NamedTuple):
    """An operator whose kernels are compiled."""
    name: str
    module: str  # with its Triton functions
    calls: Callable[[ModuleType], Iterator[tuple]]  # what, and a call of it
    multiplies: bool  # each call has to use tensor cores


class Variant(NamedTuple):
    """What the compiler says of a kernel with given types and constants."""
    kernel: str
    call: str  # that launches it
    target: str
    registers: int = 0
    spilled_bytes: int = 0
    shared_bytes: int = 0
    tensor_core_instructions: int = 0
    multiplies: bool = False
    error: Optional[str] = None

    def faults(self) -> List[str]:
        """Return a line for each fault."""
        where = f'{self.kernel} of {self.call} for {self.target}'
        if self.error:
            return [f'{where} does not compile: {self.error}']
        found, most = [], 1024 * TARGETS[self.target].shared_kib
        if self.spilled_bytes:
            found.append(f'{where} spills {self.spilled_bytes} bytes')
        if self.shared_bytes > most:
            found.append(f'{where} needs {self.shared_bytes} bytes of shared '
                         f'memory, a block has {most}')
        if self.multiplies and not self.tensor_core_instructions:
            found.append(f'{where} has no tensor-core instructions')
        return found


# --- The calls ----------------------------------------------------------------

# B, D, H, W and K: EncNet's, the largest K, and one that nothing divides.
ENCODE = ((2, 512, 64, 64, 32), (2, 512, 64, 64, 256), (1, 37, 5, 9, 5))
# B, C, h, w, H and W: EncNet on ADE20K, STDC on Cityscapes, odd and smaller.
CROSS_ENTROPY = ((2, 150, 64, 64, 512, 512), (2, 19, 64, 128, 512, 1024),
                 (1, 7, 9, 11, 65, 5))
empty = partial(torch.empty, device='meta')


def encode_calls(module: ModuleType) -> Iterator[tuple]:
    for dtype in TYPES:
        for batch, channels, rows, columns, codes in ENCODE:
            what = (f'{dtype} {batch}x{channels}x{rows}x{columns}x{codes}'
                    ).replace('torch.', '')
            x = empty(batch, channels, rows, columns, dtype=dtype)
            others = (x, empty(codes, channels), empty(codes))
            grad = empty(batch, codes, channels)
            yield f'forward {what}', partial(module.forward, *others)
            yield f'backward {what}', partial(module.backward, grad, *others)


def cross_entropy_calls(module: ModuleType) -> Iterator[tuple]:
    for dtype in TYPES:
        for batch, classes, rows, columns, *size in CROSS_ENTROPY:
            what = (f'{dtype} {batch}x{classes}x{rows}x{columns} to '
                    f'{size[0]}x{size[1]}').replace('torch.', '')
            logits = empty(batch, classes, rows, columns, dtype=dtype)
            labels = empty(batch, *size, dtype=torch.int64)
            values = empty(batch, *size)
            yield f'forward {what}', partial(
                module.forward, logits, labels, False, 255)
            yield f'backward {what}', partial(
                module.backward, values, logits, labels, values, False, 255)


OPERATORS = (
    Operator('encode', 'mmseg_encstdc.ops.encode.triton', encode_calls, True),
    Operator('upsampled_cross_entropy',
             'mmseg_encstdc.ops.upsampled_cross_entropy.triton',
             cross_entropy_calls, False),
)


# --- The check ----------------------------------------------------------------


def targets(asked: Optional[Sequence[int]]) -> List[str]:
    """Return the names of all targets, or of the compute capabilities asked for."""
    return [name for name, target in TARGETS.items()
            if not asked or target.arch in asked]


def check(names: List[str], jobs: int,
          operators: Sequence[Operator] = OPERATORS) -> Report:
    """Compile every kernel for the targets, each target in a process of a pool.

    Raises:
        RuntimeError: when the compiler ends its process.
    """
    found, lines = [], []
    with changed_environment(), ProcessPoolExecutor(
            jobs, multiprocessing.get_context('spawn')) as pool:
        waiting = [pool.submit(compile_operator, operator, name)
                   for name in names for operator in operators]
        try:
            for job in waiting:
                variants, missing = job.result()
                found += table(variants)
                lines += [line for variant in variants for line in variant.faults()]
                lines += missing
        except BrokenProcessPool as error:
            raise RuntimeError('Triton ended its process while it compiled; '
                               'what it wrote is above') from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return Report(found, lines)


@contextmanager
def changed_environment() -> Iterator[None]:
    """Let new processes compile always, into a folder that does not stay."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(ENVIRONMENT, TRITON_CACHE_DIR=folder)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def table(variants: List[Variant]) -> List[Row]:
    """Return a row for each kernel."""
    rows = []
    for kernel, group in groupby(
            sorted(variants, key=lambda variant: variant.kernel),
            lambda variant: variant.kernel):
        group = list(group)
        rows.append(Row(
            kernel, group[0].target, sum(not each.error for each in group),
            max(each.registers for each in group),
            sum(each.spilled_bytes for each in group),
            max(each.shared_bytes for each in group),
            sum(each.tensor_core_instructions for each in group)))
    return rows


# --- In a process of the pool ---------------------------------------------------


def compile_operator(operator: Operator, target: str) -> tuple:
    """Return the variants of an operator's kernels, and a line for each call that
    should use tensor cores and does not."""
    module = import_module(operator.module)
    compiler, missing = Compiler(operator.name, target), []
    with compile_only(TARGETS[target], compiler):
        for what, call in operator.calls(module):
            compiler.call, compiler.launched = what, []
            call()
            if operator.multiplies and not any(
                    each.error or each.tensor_core_instructions
                    for each in compiler.launched):
                missing.append(f'{operator.name} {what} for {target}: no kernel has '
                               'tensor-core instructions')
    return list(compiler.variants.values()), missing


@contextmanager
def compile_only(target: Target, compiler: 'Compiler') -> Iterator[None]:
    """Make launches compile for a target and not run."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction
    # Triton keeps the kernels of each device, so a target has a device of its own.
    device = list(TARGETS.values()).index(target)
    driver.set_active(SimpleNamespace(
        get_current_device=lambda: device,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget(*target[:3])))
    run = JITFunction.run

    def launch(kernel, *args, grid, warmup, **words):
        return compiler.compile(
            kernel, lambda: run(kernel, *args, grid=grid, warmup=True, **words))

    JITFunction.run = launch
    try:
        yield
    finally:
        JITFunction.run = run


class Compiler:
    """Keeps what the compiler says of every variant.

    Args:
        operator: its name.
        target: a name in :data:`TARGETS`.
    """

    def __init__(self, operator: str, target: str):
        self.operator, self.target = operator, target
        self.call = ''  # that launches
        self.launched: List[Variant] = []  # by this call
        self.variants: Dict[object, Variant] = {}
        self.kept = []  # so that no id is used twice

    def compile(self, kernel, warm_up: Callable):
        """Compile a kernel by ``warm_up``, and return what that returns."""
        log, compiled, figures = io.StringIO(), None, {}
        try:
            with redirect_stdout(log):
                compiled = warm_up()
        except Exception as error:  # whatever a compiler raises
            lines = str(error).strip().splitlines() or ['no message']
            figures = dict(error=f'{type(error).__name__}: {lines[-1]}')
        key = id(compiled) if compiled else (kernel.__name__, self.call)
        if key not in self.variants:
            self.kept.append(compiled)
            self.variants[key] = Variant(
                f'{self.operator}: {kernel.__name__}', self.call, self.target,
                **(figures or measured(compiled, log.getvalue())))
        self.launched.append(self.variants[key])
        return compiled


def measured(compiled, log: str) -> dict:
    """Return the figures of a compiled kernel and what ptxas wrote of it."""
    if 'ptx' in compiled.asm:
        text = compiled.asm['ptx']
        spilled, registers = spills_and_registers(log)
        if registers is None:
            return dict(error='Triton printed no registers; Triton 3.9 does')
    else:
        text = compiled.asm['amdgcn']
        registers, *spills = (
            int(re.search(rf'\.{name}_count: +(\d+)', text).group(1))
            for name in ('vgpr', 'vgpr_spill', 'sgpr_spill'))
        spilled = 4 * sum(spills)
    return dict(
        registers=registers, spilled_bytes=spilled,
        shared_bytes=compiled.metadata.shared,
        tensor_core_instructions=len(MULTIPLY.findall(text)),
        multiplies='tt.dot' in compiled.asm['ttir'])
