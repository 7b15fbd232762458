"""The kernels of the cross entropy of upsampled logits, on a processor."""
import ctypes
from typing import NamedTuple

import torch
from emulated_kernels import assert_fence_stands, fenced
from operator_cases import TYPES

GUARD = 64  # bytes around a map of bytes, and after a workspace


class LossPlan(NamedTuple):
    """ops/cross_entropy.h's."""
    strip: int
    groups: int
    tiles: int
    width: int
    chunk: int
    blocks: int
    bytes: int
    workspace: int


def pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def called(wrong):
    assert wrong is None, wrong


class CrossEntropy:
    """Logits (B, C, h, w) of one of TYPES, labels (B, H, W) int64 or uint8.

    ``seed`` draws the order of the threads.
    """

    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))
        for name in ('loss_forward', 'loss_backward', 'select_kth'):
            getattr(self.library, name).restype = ctypes.c_char_p
        self.library.select_workspace.restype = ctypes.c_int64

    @staticmethod
    def sizes(logits, labels, align_corners, ignore_index):
        numbers = [TYPES.index(logits.dtype), *logits.shape, *labels.shape[1:],
                   labels.dtype == torch.uint8, align_corners, ignore_index]
        return (ctypes.c_int * len(numbers))(*map(int, numbers))

    def plan(self, logits, labels, backward, align_corners=False):
        """The plan, or None where the kernels do not take it."""
        numbers = (ctypes.c_int64 * len(LossPlan._fields))()
        none = self.library.loss_plan(
            self.sizes(logits, labels, align_corners, 255), int(backward), numbers)
        return None if none else LossPlan(*numbers)

    def forward(self, logits, labels, align_corners=False, ignore_index=255,
                seed=0):
        """Losses, hits and normaliser, each (B, H, W)."""
        maps = [fenced(torch.full(labels.shape, float('nan'))) for _ in range(2)]
        hits = torch.full((labels.numel() + 2 * GUARD, ), 7, dtype=torch.uint8)
        inner = hits[GUARD:GUARD + labels.numel()]
        given, buffer = fenced(logits)
        called(self.library.loss_forward(
            self.sizes(logits, labels, align_corners, ignore_index),
            ctypes.c_uint(seed), pointer(given), pointer(labels),
            pointer(maps[0][0]), pointer(inner), pointer(maps[1][0])))
        for view, fence in [*maps, (given, buffer)]:
            assert_fence_stands(view, fence)
        assert (hits[:GUARD] == 7).all() and (hits[-GUARD:] == 7).all()
        assert (inner < 2).all(), 'a hit was not written'
        return (maps[0][0].clone(), inner.view(labels.shape).bool(),
                maps[1][0].clone())

    def backward(self, grad, logits, labels, normaliser, align_corners=False,
                 ignore_index=255, seed=0):
        """The gradient of the logits."""
        plan = self.plan(logits, labels, True, align_corners)
        # NaN, as floats and as bytes.
        workspace = torch.full((plan.workspace + GUARD, ), 255, dtype=torch.uint8)
        out = fenced(torch.full_like(logits, float('nan')))
        sources = [fenced(value) for value in (grad, logits, normaliser)]
        views = [view for view, _ in sources]
        called(self.library.loss_backward(
            self.sizes(logits, labels, align_corners, ignore_index),
            ctypes.c_uint(seed), pointer(views[0]), pointer(views[1]),
            pointer(labels), pointer(views[2]), pointer(out[0]),
            pointer(workspace)))
        for view, buffer in [*sources, out]:
            assert_fence_stands(view, buffer)
        assert (workspace[plan.workspace:] == 255).all(), (
            'written outside of the workspace')
        return out[0].clone()

    def kth_largest(self, values, k, processors=3, seed=0):
        """One float."""
        workspace = torch.zeros(
            self.library.select_workspace() + GUARD, dtype=torch.uint8)
        result, fence = fenced(torch.full((1, ), float('nan')))
        given, buffer = fenced(values)
        called(self.library.select_kth(
            ctypes.c_uint(seed), pointer(given), ctypes.c_int64(values.numel()),
            ctypes.c_int64(k), processors, pointer(result), pointer(workspace)))
        assert_fence_stands(result, fence)
        assert_fence_stands(given, buffer)
        assert (workspace[-GUARD:] == 0).all(), 'written outside of the workspace'
        return result[0].clone()
