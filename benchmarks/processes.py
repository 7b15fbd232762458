"""Measure contenders in processes of their own."""
import multiprocessing
import os
import signal
import warnings
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional
from unittest import mock

import options
import torch
from harness import (
    OutOfMemory,
    interleaved,
    memory_errors,
    number,
    peak,
    seconds,
    table,
)

from mmseg_encstdc.errors import InputError

# malloc returns blocks above this size to the system as soon as they are freed.
MAPPED = {'MALLOC_MMAP_THRESHOLD_': '65536'}
WARM_UPS = dict(cpu=1, cuda=3)


class Contender(NamedTuple):
    """Describe an implementation to measure in a process of its own.

    ``make`` returns the step; both must be picklable. ``environment`` is added to
    the variables of the process.
    """
    make: Callable[[], Callable]
    environment: Dict[str, str] = {}


class Worker:
    """Run a step in a process of its own, which starts at once.

    Args:
        contender: makes the step, and has the variables of the process.
        device: where the step computes.
    """

    def __init__(self, contender: Contender, device: torch.device):
        context = multiprocessing.get_context('spawn')
        self.pipe, there = context.Pipe()
        self.process = context.Process(
            target=serve, daemon=True,
            args=(there, contender.make, device, torch.get_num_threads()))
        # Ctrl-C is for the process that measures, which ends the others.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        with mock.patch.dict(os.environ, contender.environment):
            self.process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        there.close()

    def call(self, function: Callable, *arguments) -> Any:
        """Return ``function(step, *arguments)`` of the other process.

        Raises:
            OutOfMemory, InputError: as the function; the first also when the process
                was killed.
            RuntimeError: when it ended otherwise.
        """
        try:
            self.pipe.send((function, arguments))
            result = self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            self.process.join()
            status = self.process.exitcode
            if status == -signal.SIGKILL:  # Linux kills it when memory runs out
                raise OutOfMemory(f'killed by signal {-status}') from error
            raise RuntimeError(
                f'a measured process ended with status {status}') from error
        if isinstance(result, Exception):
            raise result
        return result

    def __enter__(self) -> 'Worker':
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def serve(pipe, make: Callable[[], Callable], device: torch.device,
          threads: int) -> None:
    """Answer the calls of :meth:`Worker.call`; make the step at the first one."""
    with suppress(OSError):  # Linux then kills this process first
        Path('/proc/self/oom_score_adj').write_text('1000')
    warnings.simplefilter('ignore')  # the libraries' warnings need no action
    options.use(device, threads)
    step = None
    with suppress(EOFError):
        while True:
            function, arguments = pipe.recv()
            try:
                with memory_errors():
                    step = step or make()
                    result = function(step, *arguments)
            except (InputError, OutOfMemory) as error:
                result = error
            pipe.send(result)


def contest(contenders: Dict[str, Contender], device: torch.device, rounds: int,
            with_memory: bool, what: str) -> dict:
    """Measure time and memory of contenders, each in processes of its own.

    Args:
        contenders: implementations by name.
        device: where the steps compute.
        rounds: number of steps that are timed.
        with_memory: measure the memory too.
        what: the argument to name when all are out of memory.

    Returns:
        ``times_ms`` and ``memory_mib`` by contender, None where memory was short,
        and ``out_of_memory``, the names of these.

    Raises:
        InputError: when none fits into the memory.
    """
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(each, device))
                   for name, each in contenders.items()}
        times = interleaved({name: partial(worker.call, seconds, device)
                             for name, worker in workers.items()},
                            rounds, WARM_UPS[device.type])
    check_any_fits(times, what)
    memory = {name: peak_memory(each, device)
              for name, each in contenders.items()} if with_memory else {}
    short = [name for name in contenders
             if times[name] is None or memory.get(name, 0) is None]
    return dict(times_ms=times, memory_mib=memory, out_of_memory=short)


def check_any_fits(times: dict, what: str) -> None:
    """Raise InputError when no contender has a time."""
    if not any(times.values()):
        raise InputError(f'{what} does not fit into the memory; give a smaller one')


def peak_memory(contender: Contender, device: torch.device) -> Optional[float]:
    """Return :func:`peak` in a fresh process, in MiB; None where memory is short."""
    environment = {**contender.environment, **MAPPED}
    with Worker(contender._replace(environment=environment), device) as worker:
        try:
            return worker.call(peak, device) / 2**20
        except OutOfMemory:
            return None


def ratios(figures: dict, above: str, below: str) -> Dict[str, Optional[float]]:
    """Return the ratios of two contenders' median times and memory."""
    times = {name: each and each['median']
             for name, each in figures['times_ms'].items()}
    return {key: values[above] / values[below]
            if values.get(above) and values.get(below) else None
            for key, values in (('time', times), ('memory', figures['memory_mib']))}


def contest_table(title: str, figures: dict, compared: Dict[str, dict]) -> str:
    """Return the figures of :func:`contest`, and ratios by their names, as text."""
    rows = []
    for name, times in figures['times_ms'].items():
        cells = [number((times or {}).get(key)) for key in (
            'median', 'min', 'lower_quartile', 'upper_quartile')]
        rows.append([name, *cells, number(figures['memory_mib'].get(name))])
    rows += [[name.replace('_over_', ' / '), number(each['time']), '', '', '',
              number(each['memory'])] for name, each in compared.items()]
    lines = [title, table(['contender', 'median, ms', 'least', 'lower quartile',
                           'upper quartile', 'memory, MiB'], rows)]
    return '\n'.join(lines + [f'{name}: out of memory'
                              for name in figures['out_of_memory']])
