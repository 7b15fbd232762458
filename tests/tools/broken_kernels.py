"""Triton kernels for the tests of tools/check_kernels.py: one that is right, and
one for each fault that the check has to find."""
import torch
import triton
import triton.language as tl


@triton.jit
def product(a, b, out, SIDE: tl.constexpr, PRECISION: tl.constexpr):
    """out = a b, all (SIDE, SIDE)."""
    index = tl.arange(0, SIDE)[:, None] * SIDE + tl.arange(0, SIDE)[None, :]
    tl.store(out + index, tl.dot(tl.load(a + index), tl.load(b + index),
                                 input_precision=PRECISION))


@triton.jit
def copy(a, out, SIZE: tl.constexpr):
    """out = a, both (SIZE, )."""
    index = tl.arange(0, SIZE)
    tl.store(out + index, tl.load(a + index))


@triton.jit
def undefined(a, out):
    tl.store(out, no_such_name(a))  # noqa: F821


def launch_product(side, dtype, precision=None):
    a = torch.empty(side, side, dtype=dtype, device='meta')
    product[(1, )](a, a, torch.empty(side, side, device='meta'), SIDE=side,
                   PRECISION=precision, num_warps=4)


def launch_copy():
    a = torch.empty(256, device='meta')
    copy[(1, )](a, torch.empty_like(a), SIZE=256)


def launch_undefined():
    a = torch.empty(1, device='meta')
    undefined[(1, )](a, a)
