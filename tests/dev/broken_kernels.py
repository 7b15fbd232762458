"""Triton kernels for the tests of dev/check_kernels.py, and calls that launch them
without a fault and with each fault that the check has to find."""
import os
from functools import partial

import torch
import triton
import triton.language as tl


@triton.jit
def multiply(a, b, out, SIDE: tl.constexpr, PRECISION: tl.constexpr):
    """out = a b, all (SIDE, SIDE)."""
    index = tl.arange(0, SIDE)[:, None] * SIDE + tl.arange(0, SIDE)[None, :]
    tl.store(out + index, tl.dot(tl.load(a + index), tl.load(b + index),
                                 input_precision=PRECISION))


@triton.jit
def transpose(a, out, SIDE: tl.constexpr):
    """out = a transposed, both (SIDE, SIDE)."""
    index = tl.arange(0, SIDE)[:, None] * SIDE + tl.arange(0, SIDE)[None, :]
    tl.store(out + index, tl.trans(tl.load(a + index)))


@triton.jit
def copy(a, out, size, SIZE: tl.constexpr):
    """out = a, both (size, )."""
    index = tl.arange(0, SIZE)
    tl.store(out + index, tl.load(a + index, mask=index < size), mask=index < size)


@triton.jit
def unknown(a, out):
    tl.store(out, no_such_name(a))  # noqa: F821


def launch_multiply(dtype, precision=None, **options):
    a = torch.empty(32, 32, dtype=dtype, device='meta')
    multiply[(1, )](a, a, a.float(), SIDE=32, PRECISION=precision, **options)


def launch_transpose(side):
    a = torch.empty(side, side, device='meta')
    transpose[(1, )](a, a, SIDE=side, num_warps=32)


def launch_copy(*sizes):
    for size in sizes:
        a = torch.empty(size, device='meta')
        copy[(1, )](a, torch.empty_like(a), size, SIZE=256)


def launch_unknown():
    a = torch.empty(1, device='meta')
    unknown[(1, )](a, a)


def right_calls(module):
    yield 'right', partial(module.launch_multiply, torch.bfloat16)


def faulty_calls(module):
    yield 'plain', partial(module.launch_multiply, torch.float32, 'ieee')
    yield 'spilling', partial(
        module.launch_multiply, torch.bfloat16, num_warps=1, maxnreg=32)
    yield 'refused', partial(module.launch_multiply, torch.bfloat16, maxnreg=16)
    yield 'large', partial(module.launch_transpose, 256)
    yield 'unknown', module.launch_unknown


def copy_calls(module):
    # Both divisible by 16; not divisible; 1 is a constant.
    yield 'copies', partial(module.launch_copy, 32, 48, 33, 1)


def ending_calls(module):
    yield 'ending', partial(os._exit, 3)
