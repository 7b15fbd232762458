"""Seconds of a call, on the processor and on a GPU."""
import time
from typing import Callable

import torch

__all__ = ['clock', 'events', 'rounded']


def clock(run: Callable[[], None]) -> float:
    """Seconds on the processor."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def events(run: Callable[[], None]) -> float:
    """Seconds on the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def rounded(value):
    """Floats to four digits, in dictionaries too."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return float(f'{value:.4g}') if isinstance(value, float) else value
