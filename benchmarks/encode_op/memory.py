"""Peak memory of forward and backward, over what the inputs take.

On a GPU the allocator counts. On a CPU the kernel counts the pages of the
process: its peak (VmHWM), set back to what is resident once the inputs are in
place, is read after the pass. That needs some care:

- Every contender and shape has a process of its own. ru_maxrss would do for
  the peak, but a process starts with the one of its parent.
- A run at a tiny shape comes first, so that the libraries' code and workspace
  are in place; what they add for larger shapes is counted, some MiB.
- malloc is told to map every tensor by itself (MALLOC_MMAP_THRESHOLD_), so
  that freed memory goes back at once and none of it is there to be reused.

Linux only. The gradient of x is part of the peak, so the least is 1.
"""
import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Optional

import torch
from common.backends import forced
from common.process_memory import MAPPED, available, peak, reset_peak

from mmseg_encstdc.errors import InputError

from .contenders import Shape, contenders, make_inputs, passes

__all__ = [
    'available', 'check_room', 'in_fresh_process', 'on_cuda', 'own_estimate',
    'stock_estimate', 'used'
]

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'benchmark.py'
TINY = 4  # height and width of the first map
FIXED = 64 << 20  # bytes, of the product that is timed and of tiles


def on_cuda(function: Callable, x: torch.Tensor) -> float:
    """Peak of ``function(x)`` after a warm-up, as a multiple of x's bytes."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function(x)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / x.nbytes


def in_fresh_process(name: str, shape: Shape, dtype: str,
                     threads: int) -> Optional[float]:
    """:func:`used` of a new process; None when that was killed.

    Raises:
        InputError: when it failed otherwise, with its last line.
    """
    done = subprocess.run(
        [sys.executable, str(TOOL), 'op', '--memory-of', name, '--shapes',
         str(shape), '--device', 'cpu', '--dtype', dtype, '--threads',
         str(threads)],
        env={**os.environ, **MAPPED},
        capture_output=True, text=True)
    if done.returncode < 0:  # by a signal: too little memory
        return None
    if done.returncode:
        line = (done.stderr.strip() or 'no message').splitlines()[-1]
        raise InputError(f'memory of {name} at {shape}: '
                         + line.replace('error: ', '', 1))
    return float(f'{float(done.stdout.splitlines()[-1]):.4g}')


def used(name: str, shape: Shape, dtype: torch.dtype) -> float:
    """Peak of a contender in this process, as a multiple of x's bytes.

    Raises:
        InputError: for an unknown contender, and where the kernel does not let
            a process set back its peak.
    """
    cpu = torch.device('cpu')
    if name not in contenders(cpu):
        raise InputError(f'--memory-of {name} is none of '
                         f'{", ".join(contenders(cpu))}')
    tiny = make_inputs(shape._replace(height=TINY, width=TINY), cpu, dtype)
    inputs = make_inputs(shape, cpu, dtype)
    with forced(name):
        passes(name, tiny)['forward_backward'](tiny.features[0])
        function = passes(name, inputs)['forward_backward']
        before = reset_peak()
        kept = function(inputs.features[0])
        more = peak() - before
    del kept  # until now: the gradients are part of the peak
    return max(more, 0) / shape.bytes(dtype)


def check_room(shape: Shape, device: torch.device) -> None:
    """Refuse a shape that would end the process for want of memory.

    A GPU's allocator says so itself; x is drawn in the memory of the machine.

    Raises:
        InputError: naming the shape, what it needs and what there is.
    """
    need = own_estimate(shape) if device.type == 'cpu' else 4 * shape.elements
    have = available()
    if need > have:
        raise InputError(
            f'--shapes {shape} needs about {need / 1e9:.4g} GB of memory, '
            f'{have / 1e9:.4g} GB are available; give a smaller one')


def own_estimate(shape: Shape) -> int:
    """Bytes that a comparison needs on a CPU, stock left out.

    At its peak x, two gradients of it and their difference, in float32; the
    distances that wait for a backward pass; and the encodings with their
    workspace. Tests compare it with what is measured.
    """
    distances = shape.batch * shape.count * shape.codes
    encodings = shape.batch * shape.codes * shape.channels
    return FIXED + 4 * (
        21 * shape.elements // 4 + 5 * distances // 4 + 14 * encodings)


def stock_estimate(shape: Shape) -> int:
    """Bytes that stock may need: eight float32 tensors of B N K D.

    Four were measured at its peak; the rest is for what else runs.
    """
    return 8 * 4 * shape.residuals
