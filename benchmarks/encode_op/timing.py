"""Time per call: medians over rounds in which all contenders take turns.

So that what slows a machine down for a while slows all of them. On a GPU a
call is replayed from a CUDA graph, which leaves out what Python costs, and x
rotates among copies that the L2 cache cannot hold together.
"""
import math
import statistics
from typing import Callable, Dict, List, Optional, Tuple

import torch
from common.backends import forced
from common.clocks import clock, events, rounded
from torch import Tensor

from mmseg_encstdc.ops.backend import BACKENDS

from . import memory
from .contenders import (
    PASSES,
    Inputs,
    Shape,
    check_agreement,
    contenders,
    make_inputs,
    outcome,
    passes,
)

__all__ = ['measure']

KERNELS = ('triton', 'cuda')
LEAST_ROUNDS = 3
LONGEST = 3.0  # seconds of one cell, unless LEAST_ROUNDS take longer
LEAST_SAMPLE = 5e-3  # seconds; a shorter call is repeated
L2_TIMES = 4  # what the copies of x take of the L2 cache, together
PRODUCT = (4096, 512, 512)  # rows, inner and columns of the product
PRODUCTS = dict(forward=2, forward_backward=7)  # of B N K D, in the operator
# Bytes that must move, in those that a copy of x moves: x is read, and for
# the backward pass read again and its gradient written.
COPIES = dict(forward=0.5, forward_backward=1.5)


class Cell:
    """One function of x to time, on every copy of x in turn.

    A contender's was run before: see :func:`warm_up`.

    Args:
        name (str): of the contender.
        function (callable): takes a copy of x.
        features (list[Tensor]): the copies.
        beside (Cell): one whose graph's memory and stream to share: neither
            leaves a tensor there, and they take turns.
    """

    def __init__(self, name: str, function: Callable, features: List[Tensor],
                 beside: Optional['Cell'] = None):
        self.name, self.function, self.features = name, function, features
        self.graph = self.stream = None
        self.timing = 'calls'
        self.cuda = features[0].is_cuda
        if self.cuda:
            self.stream = beside.stream if beside else torch.cuda.Stream()
            self.capture(beside.graph.pool() if beside and beside.graph else None)
            self.timing = 'graph' if self.graph else 'events'
        self.repeats = 1
        seconds = self.sample() * len(features)
        self.repeats = math.ceil(LEAST_SAMPLE / seconds)
        self.rounds = max(int(LONGEST / (seconds * self.repeats)),
                          LEAST_ROUNDS)
        self.samples = []

    def capture(self, pool) -> None:
        """Put all calls in a CUDA graph, or say that they cannot be."""
        before = torch.cuda.current_stream()
        self.stream.wait_stream(before)
        graph = torch.cuda.CUDAGraph()
        try:
            with forced(self.name):
                with torch.cuda.stream(self.stream):
                    for _ in range(3):
                        self.function(self.features[0])
                with torch.cuda.graph(graph, pool=pool, stream=self.stream):
                    # Kept to the end, so that outputs lie apart as inputs do.
                    kept = [self.function(x) for x in self.features]
                    del kept
            graph.replay()
            torch.cuda.synchronize()
            self.graph = graph
        except RuntimeError as error:
            print(f'  {self.name} is timed without a CUDA graph: '
                  f'{str(error).splitlines()[0]}', flush=True)
        finally:
            torch.cuda.set_stream(before)  # a failed capture leaves its own

    def run(self) -> None:
        for _ in range(self.repeats):
            if self.graph:
                self.graph.replay()
            else:
                for x in self.features:
                    self.function(x)

    def sample(self) -> float:
        """Seconds of one call, now."""
        with forced(self.name):
            seconds = (events if self.cuda else clock)(self.run)
        return seconds / (self.repeats * len(self.features))

    def take_turn(self, turn: int, rounds: int) -> None:
        """Time a call in this turn, if it is among the cell's own rounds."""
        own = min(self.rounds, rounds)
        if turn * own // rounds < (turn + 1) * own // rounds:
            self.samples.append(self.sample())

    @property
    def milliseconds(self) -> float:
        """The median."""
        return 1e3 * statistics.median(self.samples)


def measure(shape: Shape, device: torch.device, dtype: torch.dtype,
            rounds: int) -> dict:
    """All figures of one shape, but for the memory on a CPU.

    Returns:
        dict: ``times_ms``, ``rounds``, ``timing`` and ``memory`` by
        contender, None where it did not run and ``skipped`` says why;
        ``floor_ms``, on a CPU ``products_ms``, and ``ratios`` by path.

    Raises:
        RuntimeError: when two contenders do not compute the same.
    """
    copies = copies_of_x(shape, device, dtype)
    inputs = make_inputs(shape, device, dtype, copies)
    names = contenders(device)
    skipped = skip(shape, device)
    figures = dict(memory=dict.fromkeys(names))
    warm_up(shape, inputs, names, skipped, figures['memory'])
    cells = make_cells(inputs, names, skipped)
    for turn in range(rounds):
        for cell in cells.values():
            cell.take_turn(turn, rounds)
    name = str(dtype).split('.')[-1]
    row = dict(shape=str(shape), **shape._asdict(), dtype=name,
               input_bytes=shape.bytes(dtype), copies_of_x=copies)
    return {**row, **summary(shape, names, cells), **figures,
            'skipped': skipped}


def copies_of_x(shape: Shape, device: torch.device, dtype: torch.dtype) -> int:
    """How many copies a GPU's L2 cache cannot hold; one on a CPU."""
    if device.type != 'cuda':
        return 1
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(math.ceil(L2_TIMES * cache / shape.bytes(dtype)), 2)


def skip(shape: Shape, device: torch.device) -> Dict[str, str]:
    """Contenders that would end the process, with the reason."""
    if device.type == 'cuda':  # its allocator says so when memory runs out
        return {}
    need, have = memory.stock_estimate(shape), memory.available()
    if need <= have:
        return {}
    return dict(stock=f'may need {need / 1e9:.1f} GB of memory, '
                f'{have / 1e9:.1f} GB are available')


def warm_up(shape: Shape, inputs: Inputs, names: Tuple[str, ...],
            skipped: Dict[str, str], used: Dict[str, Optional[float]]) -> None:
    """Run every contender, compare their outcomes, and fill ``used`` on CUDA.

    One that runs out of memory goes to ``skipped``, and so does a backend of a GPU
    that fails or disagrees: the others are measured all the same.
    """
    x = inputs.features[0]
    expected = outcome('torch', inputs)
    for name in names:
        if name in skipped:
            continue
        try:
            values = outcome(name, inputs)
            check_agreement(name, values, expected, f'{shape}, {x.dtype}')
            del values
            if x.is_cuda:
                with forced(name):
                    function = passes(name, inputs)['forward_backward']
                    used[name] = rounded(memory.on_cuda(function, x))
        except torch.cuda.OutOfMemoryError:
            skipped[name] = 'out of memory'
        except Exception as error:  # whatever a compiler or a driver raises
            if name not in KERNELS:
                raise
            skipped[name] = (str(error).strip() or repr(error)).splitlines()[0]
        if x.is_cuda:
            torch.cuda.empty_cache()


def make_cells(inputs: Inputs, names: Tuple[str, ...],
               skipped: Dict[str, str]) -> Dict[Tuple[str, str], Cell]:
    """The cells by contender and pass, those of copy and product included."""
    features = inputs.features
    cells = {}
    for name in names:
        if name not in skipped:
            try:
                cells.update(operator_cells(name, inputs))
            except torch.cuda.OutOfMemoryError:
                skipped[name] = 'out of memory'
    # A target for each, so that the L2 cache does not hold the target either.
    targets = {id(x): torch.empty_like(x) for x in features}
    cells['copy', 'forward'] = Cell(
        'copy', torch.no_grad()(lambda x: targets[id(x)].copy_(x)), features)
    if not features[0].is_cuda:
        rows, inner, columns = PRODUCT
        a, b = torch.randn(rows, inner), torch.randn(inner, columns)
        cells['product', 'forward'] = Cell('product', lambda _: a @ b,
                                           features[:1])
    return cells


def operator_cells(name: str, inputs: Inputs) -> Dict[Tuple[str, str], Cell]:
    """Both passes of a contender; the one with more memory comes first."""
    forward, forward_backward = (passes(name, inputs)[key] for key in PASSES)
    both = Cell(name, forward_backward, inputs.features)
    alone = Cell(name, forward, inputs.features, beside=both)
    return {(name, 'forward'): alone, (name, 'forward_backward'): both}


def summary(shape: Shape, names: Tuple[str, ...],
            cells: Dict[Tuple[str, str], Cell]) -> dict:
    """Medians, bounds and ratios as the result file has them."""
    def by_name(value):
        found = {name: None for name in names}
        for (name, key), cell in cells.items():
            found[name] = {**(found.get(name) or {}), key: value(cell)}
        return found

    times = by_name(lambda cell: cell.milliseconds)
    bounds = dict(floor=bound(COPIES, times['copy']['forward']))
    figures = {}
    if 'product' in times:
        rate = 2 * math.prod(PRODUCT) / times['product']['forward']
        each = 2 * shape.residuals / rate
        bounds['products'] = bound(PRODUCTS, each)
        figures['product_gflops'] = rate / 1e6
    tightest = list(bounds)[-1]
    ratios = {
        name: {
            'stock_over_ours': quotient(times['stock'], times[name]),
            f'ours_over_{tightest}': quotient(times[name], bounds[tightest]),
        } for name in names if name in BACKENDS
    }
    return rounded(dict(
        times_ms=times, **{f'{key}_ms': value for key, value in bounds.items()},
        ratios=ratios, **figures, rounds=by_name(lambda c: len(c.samples)),
        timing=by_name(lambda cell: cell.timing)))


def bound(times: Dict[str, float], each: float) -> Dict[str, float]:
    """Milliseconds by pass of so many times ``each``."""
    return {key: factor * each for key, factor in times.items()}


def quotient(above: Optional[dict], below: Optional[dict]) -> Optional[dict]:
    """By pass; None when one of both was not measured."""
    if above is None or below is None:
        return None
    return {key: above[key] / below[key] for key in PASSES}
