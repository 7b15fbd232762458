"""Measure time and memory of the Encoding operator, MMSegmentation's and ours.

Compares MMSegmentation's layer, the formula out of PyTorch's operators (composite)
and this package's operator with each backend that can run here. The least that an
implementation costs are matrix products: 2 forward, 7 forward and backward, of
2 B N K D operations each, at the speed of one large product.
"""
import argparse
import math
from functools import partial
from typing import Callable, List, NamedTuple, Tuple

import encode_report
import harness
import options
import processes
import record
import torch
from harness import OutOfMemory
from processes import Contender
from torch import Tensor, nn

from mmseg_encstdc.ops import encode  # first: makes mmseg importable

from mmseg.models.utils.encoding import Encoding  # isort: skip
from mmseg_encstdc.ops.encode import MAX_CODES
from mmseg_encstdc.ops.encode.reference import encode_composite

# EncNet: 512 channels, 32 codewords, and the maps of crops of 480, 512, 512 x 1024
# and 769 at an eighth of the size.
CHANNELS, CODES = 512, 32
MAPS = ((60, 60), (64, 64), (64, 128), (97, 97))
BATCHES = (2, 4, 8, 16)
SIDES = (16, 32, 64, 128)  # of the maps of the sweep in N
MANY_CODES = (8, 16, 32, 64, 128, 256)  # of the sweep in K
ROUNDS = 11
DTYPES = dict(cpu=['float32'], cuda=['float32', 'bfloat16'])
PRODUCT = (4096, 512, 512)  # rows, inner and columns of the product that is timed
PRODUCTS = dict(forward=2, forward_backward=7)  # of an implementation
PASSES = tuple(PRODUCTS)


class Shape(NamedTuple):
    """Give the sizes of features (B, D, H, W) and of K codewords."""
    batch: int
    channels: int
    height: int
    width: int
    codes: int

    def __str__(self) -> str:
        return 'x'.join(map(str, self))


QUICK = Shape(2, CHANNELS, 64, 64, CODES)


class Operator:
    """Hold an implementation with random inputs, the same for every contender.

    Squared distances are about 1.25 D, so that scales up to 4 / D in size give every
    codeword a part of the assignments, as in a trained network.

    Args:
        name: 'stock', 'composite' or a backend.
        shape: of features and codewords.
        device: of all tensors.
        dtype: of the features.
    """

    def __init__(self, name: str, shape: Shape, device: torch.device,
                 dtype: torch.dtype):
        random = torch.Generator().manual_seed(0)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=random)

        batch, channels, height, width, codes = shape
        x = normal(batch, channels, height, width)  # (B, D, H, W)
        self.name, self.x = name, x.to(device, dtype).requires_grad_()
        codewords = 0.5 * normal(codes, channels)  # (K, D)
        self.codewords = nn.Parameter(codewords.to(device))
        scale = -4 / channels * torch.rand(codes, generator=random)
        self.scale = nn.Parameter(scale.to(device))  # (K, )
        self.gradient = normal(batch, codes, channels).to(device)  # (B, K, D)
        layer = Encoding(channels, codes)
        layer.codewords, layer.scale = self.codewords, self.scale
        others = dict(stock=lambda x, *_: layer(x), composite=encode_composite)
        self.encode = others.get(name, encode)

    def forward(self) -> Tensor:
        """Return the encodings (B, K, D) without a graph for the backward pass."""
        with harness.forced(self.name), torch.no_grad():
            return self.encode(self.x, self.codewords, self.scale)

    def forward_backward(self) -> Tuple[Tensor, ...]:
        """Return the gradients of x, codewords and scale."""
        arguments = self.x, self.codewords, self.scale
        with harness.forced(self.name):
            encodings = self.encode(*arguments)
            return torch.autograd.grad(encodings, arguments, self.gradient)

    __call__ = forward_backward


def contenders(device: torch.device) -> Tuple[str, ...]:
    """Return the contenders on a device."""
    return ('stock', 'composite', *harness.backends('encode', device))


# --- Measuring ------------------------------------------------------------------


def measure(shape: Shape, device: torch.device, dtype: torch.dtype, rounds: int,
            with_memory: bool) -> dict:
    """Return a row of the result.

    ``memory`` is the peak of forward and backward in multiples of x; ``skipped`` has
    the reason for each contender without figures.
    """
    names, samplers, memory, skipped = contenders(device), {}, {}, {}
    pool = torch.cuda.graph_pool_handle() if device.type == 'cuda' else None
    for name in names:
        make = partial(Operator, name, shape, device, dtype)
        try:
            samplers.update(passes(make, device, pool))
            if with_memory and device.type == 'cpu':
                memory[name] = processes.peak_memory(Contender(make), device)
            elif with_memory:  # here: the allocator counts tensors alone
                memory[name] = harness.peak(make(), device) / 2**20
        except OutOfMemory:
            skipped[name] = 'out of memory'
        except Exception as error:  # whatever a compiler or a driver raises
            if name not in ('triton', 'cuda'):
                raise
            skipped[name] = (str(error).strip() or repr(error)).splitlines()[0]
    samplers['product'] = partial(harness.seconds, product(device), device)
    times = harness.interleaved(samplers, rounds)
    for name in names:
        if not all(times.get((name, key)) for key in PASSES):
            skipped.setdefault(name, 'out of memory')
    return row_of(shape, dtype, names, times, memory, skipped)


def passes(make: Callable[[], Operator], device: torch.device, pool) -> dict:
    """Return a sampler for each pass of a contender, after a first call of it."""
    with harness.memory_errors():
        operator = make()
        operator()
        name, found = operator.name, {}
        for key in PASSES:
            step = getattr(operator, key)
            step = step if pool is None else captured(step, pool)
            found[name, key] = partial(harness.seconds, step, device)
    return found


def captured(step: Callable, pool) -> Callable:
    """Return the replay of a step from a CUDA graph, without the time of Python.

    Graphs share the memory of a pool: no result is read, and they run in turns.
    """
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph, pool=pool):
        step()
    return graph.replay


def product(device: torch.device) -> Callable[[], Tensor]:
    """Return a function that multiplies two matrices of sizes :data:`PRODUCT`."""
    rows, inner, columns = PRODUCT
    a = torch.randn(rows, inner, device=device)
    b = torch.randn(inner, columns, device=device)
    return lambda: a @ b


def row_of(shape: Shape, dtype: torch.dtype, names: Tuple[str, ...], times: dict,
           memory: dict, skipped: dict) -> dict:
    """Return the entries of a shape in the result file."""
    batch, channels, height, width, codes = shape
    rate = 2 * math.prod(PRODUCT) / times['product']['median']  # operations per ms
    each = 2 * batch * height * width * codes * channels / rate
    x_mib = batch * channels * height * width * dtype.itemsize / 2**20
    return harness.rounded(dict(
        shape=str(shape), **shape._asdict(), dtype=str(dtype).split('.')[-1],
        times_ms={name: None if name in skipped else {
            key: times[name, key] for key in PASSES} for name in names},
        products_ms={key: count * each for key, count in PRODUCTS.items()},
        product_gflops=rate / 1e6,
        memory={name: value and value / x_mib for name, value in memory.items()},
        skipped=skipped))


# --- Command --------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand op."""
    parser.set_defaults(run=run)
    shapes = parser.add_mutually_exclusive_group()
    shapes.add_argument('--shapes', nargs='+', type=read_shape, metavar='BxDxHxWxK',
                        help="default: EncNet's, and sweeps in N and K")
    shapes.add_argument('--quick', action='store_true', help=f'only {QUICK}')
    parser.add_argument(
        '--dtype', nargs='+', choices=['float32', 'bfloat16', 'float16'],
        help='of x; default: float32, on a GPU also bfloat16')
    options.add_arguments(parser, ROUNDS, 'encode_cpu or encode_GPU, with _some where '
                          '--shapes or --quick choose')
    parser.add_argument('--no-plot', action='store_true')


def read_shape(text: str) -> Shape:
    """Read BxDxHxWxK."""
    shape = Shape(*options.numbers(text, 'BxDxHxWxK'))
    if shape.codes > MAX_CODES:
        raise argparse.ArgumentTypeError(
            f'{text!r} has more than {MAX_CODES} codewords')
    return shape


def default_shapes(device: torch.device) -> List[Shape]:
    """Return EncNet's shapes and both sweeps; on a CPU larger batches of one map."""
    shapes = [Shape(2, CHANNELS, side, side, CODES) for side in SIDES]
    shapes += [Shape(2, CHANNELS, 64, 64, codes) for codes in MANY_CODES]
    for size in MAPS:
        whole = device.type == 'cuda' or size == (64, 64)
        shapes += [Shape(batch, CHANNELS, *size, CODES)
                   for batch in (BATCHES if whole else BATCHES[:1])]
    return list(dict.fromkeys(shapes))


def run(args: argparse.Namespace) -> None:
    """Run the subcommand op; the result is written after every row.

    Raises:
        InputError: when a shape is too large or the result cannot be written.
        KeyboardInterrupt: with what to tell the user.
    """
    some = 'some' if args.shapes or args.quick else ''
    path = options.result_file(args, 'encode', some)
    picture = path.with_suffix('.png')
    if not args.no_plot:
        record.check_writable(picture)
    shapes = args.shapes or ([QUICK] if args.quick else default_shapes(args.device))
    asked = [(shape, dtype) for dtype in args.dtype or DTYPES[args.device.type]
             for shape in shapes]
    rows = []
    try:
        for shape, dtype in asked:
            print(f'{shape}, {dtype} ...', flush=True)
            row = measure(shape, args.device, getattr(torch, dtype), args.rounds,
                          not args.no_memory)
            processes.check_any_fits(row['times_ms'], f'--shapes {shape}')
            rows.append(row)
            record.write(path.stem, dict(rounds=args.rounds, shapes=rows),
                         kind=args.device.type)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f'stopped; {len(rows)} of {len(asked)} measurements are in {path}'
            if rows else 'stopped') from None
    print(encode_report.table(rows))
    if not args.no_plot:
        encode_report.plot(rows, record.device(args.device.type), picture)
    print(f'written to {path}')
