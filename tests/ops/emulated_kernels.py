"""The CUDA kernels on a processor: see emulation/emulated_device.h."""
import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from operator_cases import TYPES

EMULATION = Path(__file__).parent / 'emulation'
OPS = Path(__file__).resolve().parents[2] / 'ops'
MARGIN = 64  # elements of NaN around a tensor


class Device(NamedTuple):
    """What a plan depends on; the default is an H100."""
    processors: int = 132
    shared_bytes: int = 232448
    capability: int = 90


class Plan(NamedTuple):
    """ops/encode.h's."""
    chunk: int
    stages: int
    blocks: int
    cluster: int
    bytes: int
    workspace: int


def fenced(tensor):
    """A copy with the same strides, and the buffer of NaN that it lies in."""
    extent = 1 + sum(
        (size - 1) * step for size, step in zip(tensor.shape, tensor.stride()))
    buffer = torch.full((extent + 2 * MARGIN, ), float('nan')).to(tensor.dtype)
    view = buffer.as_strided(tensor.shape, tensor.stride(), MARGIN)
    once = tuple(slice(0, 1 if step == 0 else None) for step in tensor.stride())
    view[once] = tensor[once]
    return view, buffer


def assert_fence_stands(view, buffer):
    """Nothing but the tensor was written."""
    rest = buffer.clone()
    rest.as_strided(view.shape, view.stride(), MARGIN).fill_(float('nan'))
    assert rest.isnan().all(), 'written outside of a tensor'


class Kernels:
    """The kernels, compiled for this processor.

    x is (B, D, N) of any strides. ``seed`` draws the order of the threads.
    """

    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))
        self.library.encode_run.restype = ctypes.c_char_p

    def plan(self, x, codewords, backward, device=Device()):
        """The plan, or None where the device has no room."""
        numbers = (ctypes.c_int64 * len(Plan._fields))()
        none = self.library.encode_plan(
            self.sizes(x, codewords), self.ints(device), int(backward), numbers)
        return None if none else Plan(*numbers)

    def forward(self, x, codewords, scale, device=Device(), seed=0):
        """Encodings (B, K, D)."""
        out = torch.full((x.size(0), *codewords.shape), float('nan'))
        self.run(x, codewords, scale, None, [out], device, seed)
        return out

    def backward(self, grad, x, codewords, scale, device=Device(), seed=0):
        """Gradients of x, codewords and scale."""
        outs = [torch.empty_like(x), torch.empty_like(codewords),
                torch.empty_like(scale)]
        for out in outs:
            out.fill_(float('nan'))
        self.run(x, codewords, scale, grad, outs, device, seed)
        return outs

    def run(self, x, codewords, scale, grad, outs, device, seed):
        plan = self.plan(x, codewords, grad is not None, device)
        assert plan, 'no room on this device'
        workspace = torch.full((plan.workspace + 512, ), 255, dtype=torch.uint8)
        start = workspace.data_ptr() + -workspace.data_ptr() % 256
        sources = [x, codewords, scale] + ([] if grad is None else [grad])
        fences = [fenced(tensor) for tensor in sources + outs]
        views = [view for view, _ in fences]
        given, results = views[:len(sources)], views[len(sources):]
        if grad is None:
            given, results = [*given, None], [*results, None, None, None]
        else:
            results = [None, *results]
        grad_x = results[1] if grad is not None else x
        wrong = self.library.encode_run(
            self.sizes(x, codewords), self.ints(device), ctypes.c_uint(seed),
            (ctypes.c_int64 * 6)(*x.stride(), *grad_x.stride()),
            *map(self.pointer, given + results), ctypes.c_void_p(start))
        assert wrong is None, wrong
        assert (workspace[start - workspace.data_ptr() + plan.workspace:]
                == 255).all(), 'written outside of the workspace'
        for view, buffer in fences:
            assert_fence_stands(view, buffer)
        for out, view in zip(outs, views[len(sources):]):
            out.copy_(view)

    @staticmethod
    def pointer(tensor):
        return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())

    @staticmethod
    def ints(values):
        return (ctypes.c_int * len(values))(*values)

    def sizes(self, x, codewords):
        return self.ints([TYPES.index(x.dtype), *x.shape, codewords.size(0)])


def compile_library(target, sources, *flags):
    """A shared library of ``sources`` against the emulated device."""
    compiler = shutil.which('g++')
    if compiler is None:
        pytest.skip('needs g++ to run the kernels on this processor')
    command = [compiler, '-std=c++17', '-O2', '-fPIC', '-shared', '-Wall',
               '-Werror', '-Wno-unknown-pragmas', f'-I{OPS}', f'-I{EMULATION}',
               *flags, '-x', 'c++', *map(str, sources), '-o', str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def compile_kernels(folder):
    """A library of the kernels of ops/, to be run here."""
    sources = [*sorted(OPS.glob('*.cu')),
               *sorted(file for file in OPS.glob('*.cpp')
                       if file.name != 'binding.cpp'),
               *sorted(EMULATION.glob('*.cpp'))]
    return compile_library(folder / 'kernels.so', sources)
