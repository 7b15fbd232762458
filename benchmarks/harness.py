"""Time contenders in turns, and measure memory. Linux only.

A contender is an implementation to measure. Contenders take turns, so that other load
on the machine slows all of them alike. A ``step`` is the function to measure, without
arguments.
"""
import os
import re
import resource
import statistics
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from prettytable import PrettyTable

from mmseg_encstdc.errors import InputError
from mmseg_encstdc.ops import backend

# Messages of PyTorch's allocators and of C++ when memory runs out.
SHORT = ("can't allocate memory", 'not enough memory', 'CUDA out of memory',
         'bad_alloc', 'calculation overflowed', 'multiplication overflow')


class OutOfMemory(Exception):
    """A contender does not fit into the memory."""

# --- Backends -------------------------------------------------------------------


def backends(operator: str, device: torch.device) -> Tuple[str, ...]:
    """Return the backends that compute an operator on a device; torch on a CPU."""
    if device.type == 'cpu':  # Triton's interpreter is for tests
        return ('torch', )
    return tuple(name for name in backend.BACKENDS if not backend.unavailable(
        backend.OPERATORS[operator], name, device))


@contextmanager
def forced(name: str) -> Iterator[None]:
    """Force a backend by its environment variable; do nothing for other names."""
    before = os.environ.get(backend.VARIABLE)
    if name in backend.BACKENDS:
        os.environ[backend.VARIABLE] = name
    try:
        yield
    finally:
        if before is not None:
            os.environ[backend.VARIABLE] = before
        else:
            os.environ.pop(backend.VARIABLE, None)


# --- Time -----------------------------------------------------------------------


def seconds(step: Callable, device: torch.device) -> float:
    """Return the seconds of a step; on a GPU, overwrite the L2 cache before it.

    Raises:
        OutOfMemory: when memory is short.
    """
    with memory_errors():
        if device.type == 'cpu':
            started = time.perf_counter()
            step()
            return time.perf_counter() - started
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        torch.zeros(2 * cache, dtype=torch.int8, device=device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def interleaved(samplers: Dict[Any, Callable[[], float]], rounds: int,
                warm_ups: int = 1) -> Dict[Any, Optional[Dict[str, float]]]:
    """Sample all contenders in every round, every second round in reverse order.

    Args:
        samplers: functions by contender, which run a step and return its seconds.
        rounds: number of samples of each.
        warm_ups: rounds before these, which are not measured.

    Returns:
        By contender :func:`spread`, or None where memory was short.
    """
    samples = {name: [] for name in samplers}
    for turn in range(warm_ups + rounds):
        for name in list(samples)[::-1 if turn % 2 else 1]:
            try:
                samples[name].append(samplers[name]())
            except OutOfMemory:
                del samples[name]
    return {name: spread(samples[name][warm_ups:]) if name in samples else None
            for name in samplers}


def spread(samples: List[float]) -> Dict[str, float]:
    """Return median, minimum and quartiles of seconds, in milliseconds."""
    ms = [1e3 * value for value in samples]
    lower, median, upper = statistics.quantiles(
        ms if len(ms) > 1 else 2 * ms, n=4, method='inclusive')
    return dict(median=median, min=min(ms), lower_quartile=lower, upper_quartile=upper)


# --- Memory ---------------------------------------------------------------------


def peak(step: Callable, device: torch.device) -> int:
    """Return the peak memory of the second call of a step, minus that before it, bytes.

    The peak includes the return value of the step.

    Raises:
        OutOfMemory: when memory is short.
        InputError: when Linux does not let a process reset its peak.
    """
    with memory_errors():
        step()
        if device.type == 'cuda':
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            step()
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - before
        try:
            Path('/proc/self/clear_refs').write_text('5')  # resets VmHWM
        except OSError as error:
            raise InputError(f'memory cannot be measured: {error}; leave it out with '
                             '--no-memory') from error
        before = process_bytes('VmRSS')
        kept = step()
        most = process_bytes('VmHWM')
        del kept
        return max(most - before, 0)


def process_bytes(key: str) -> int:
    """Return the bytes of this process by a name in /proc/self/status."""
    status = Path('/proc/self/status').read_text()
    return 1024 * int(re.search(rf'{key}:\s+(\d+) kB', status).group(1))


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn PyTorch's errors for too little memory into OutOfMemory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(
                words in str(error) for words in SHORT):
            raise
        raise OutOfMemory(str(error)) from error


@contextmanager
def memory_limit(device: torch.device) -> Iterator[None]:
    """Limit the address space to the available memory, so that Linux kills no process.

    A CPU allocation over the limit raises an error. Child processes inherit the limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if device.type == 'cpu':
        left = re.search(r'MemAvailable:\s+(\d+)', Path('/proc/meminfo').read_text())
        most = process_bytes('VmSize') + 1024 * int(left.group(1))
        limits = [value for value in (soft, hard) if value != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min([most, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# --- Figures ------------------------------------------------------------------


def rounded(value: Any) -> Any:
    """Return floats with four digits, in dictionaries too."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return float(f'{value:.4g}') if isinstance(value, float) else value


def number(value: Optional[float]) -> str:
    """Return four digits, or a dash for None."""
    return '-' if value is None else f'{value:.4g}'


def table(head: List[str], rows: List[list]) -> str:
    """Return rows as text of fixed width."""
    shown = PrettyTable(head)
    shown.align = 'r'
    shown.add_rows(rows)
    return str(shown)
