"""Run the CUDA kernels on a processor; see emulation/emulated_device.h."""
import ctypes
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from operator_cases import TYPES

EMULATION = Path(__file__).parent / 'emulation'
OPS = Path(__file__).resolve().parents[2] / 'ops'
MARGIN = 64  # elements of NaN around a tensor


# A plan depends on the device and on the architecture that the code is compiled for.
# The default is an H100.
Device = namedtuple('Device', 'multiprocessors shared_bytes architecture',
                    defaults=(132, 232448, 90))
# The fields of Plan in ops/encode/encode.h.
Plan = namedtuple('Plan', 'block_channels stages blocks cluster_size shared_bytes '
                  'workspace_bytes')


def fenced(tensor):
    """Return a copy with the same strides, and the buffer of NaN that it lies in."""
    extent = 1 + sum(
        (size - 1) * step for size, step in zip(tensor.shape, tensor.stride()))
    buffer = torch.full((extent + 2 * MARGIN, ), float('nan')).to(tensor.dtype)
    view = buffer.as_strided(tensor.shape, tensor.stride(), MARGIN)
    once = tuple(slice(0, 1 if step == 0 else None) for step in tensor.stride())
    view[once] = tensor[once]
    return view, buffer


def assert_margins_unchanged(view, buffer):
    """Assert that the margins of a fenced tensor are unchanged."""
    rest = buffer.clone()
    rest.as_strided(view.shape, view.stride(), MARGIN).fill_(float('nan'))
    assert rest.isnan().all(), 'written outside of a tensor'


class Kernels:
    """Call the kernels, compiled for this processor; x is (B, D, N), any strides."""

    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))
        self.library.encode_run.restype = ctypes.c_char_p

    def plan(self, x, codewords, backward, device=Device()):
        """Return the plan, or None if shared memory is too small."""
        numbers = (ctypes.c_int64 * len(Plan._fields))()
        self.library.encode_plan(sizes(x, codewords), ints(device), backward, numbers)
        return Plan(*numbers) if numbers[0] else None

    def __call__(self, x, codewords, scale, grad=None, device=Device(), seed=0):
        """Return [encodings], or with ``grad`` the gradients of x, codewords, scale.

        ``seed`` draws the order of the threads.
        """
        plan = self.plan(x, codewords, grad is not None, device)
        assert plan, 'no room on this device'
        outs = [torch.empty(x.size(0), *codewords.shape)] if grad is None else [
            torch.empty_like(value) for value in (x, codewords, scale)]
        sources = [value for value in (x, codewords, scale, grad) if value is not None]
        fences = [fenced(value) for value in sources] + [
            fenced(value.fill_(float('nan'))) for value in outs]
        x, codewords, scale, *rest = (view for view, _ in fences)
        grad, encodings, grad_x, *grads = [
            None, *rest, x, None, None] if grad is None else [rest[0], None, *rest[1:]]
        workspace = torch.full((plan.workspace_bytes + 512, ), 255, dtype=torch.uint8)
        start = -workspace.data_ptr() % 256  # 255 in every byte is a NaN
        error = self.library.encode_run(
            sizes(x, codewords), ints(device), ctypes.c_uint(seed),
            (ctypes.c_int64 * 6)(*x.stride(), *grad_x.stride()),
            *map(pointer, (x, grad_x, codewords, scale, grad, encodings, *grads,
                           workspace[start:])))
        assert error is None, error
        assert (workspace[start + plan.workspace_bytes:] == 255).all(), (
            'written outside of the workspace')
        for view, buffer in fences:
            assert_margins_unchanged(view, buffer)
        return [view.clone() for view, _ in fences[len(sources):]]


def pointer(tensor):
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def ints(values):
    return (ctypes.c_int * len(values))(*values)


def sizes(x, codewords):
    return ints([TYPES.index(x.dtype), *x.shape, codewords.size(0)])


def compile_library(target, sources, *flags):
    """Compile a shared library of ``sources`` against the emulated device."""
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
    """Compile the kernels of ops/, to be run here."""
    return compile_library(folder / 'kernels.so', [
        *sorted(OPS.glob('encode/*.cu')), OPS / 'encode' / 'encode.cpp',
        EMULATION / 'harness.cpp'])
