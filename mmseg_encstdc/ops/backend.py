"""Define operators, choose which implementation computes, and say why.

``torch`` is plain PyTorch and runs on every device. ``triton`` runs on a GPU where
Triton is installed, as it is with PyTorch's CUDA and ROCm wheels for Linux.
``cuda`` is the CUDA C++ extension, which must be built. The environment variable
MMSEG_ENCSTDC_BACKEND, read at every call, chooses:

    auto    on a GPU the first of :data:`AUTO` that takes the arguments and passes
            its self-check; else torch
    torch, triton, cuda
            that backend, without a self-check; a RuntimeError where it cannot
            compute. An operator that has no such implementation goes by auto.

The self-check runs once per operator, device and type: a small input, forward and
backward, against the torch backend in float64. A difference above the documented
tolerance, or an exception, is one WARNING, and the torch backend computes for the
rest of the process.
"""
import logging
import os
import threading
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Callable, Dict, NamedTuple, Optional, Tuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

VARIABLE = 'MMSEG_ENCSTDC_BACKEND'
BACKENDS = ('torch', 'triton', 'cuda')
# What auto tries on a GPU, per operator and in this order. The CUDA extension may
# stand here once a file in benchmarks/results shows that it ran on a GPU and was
# right, and before triton if it was faster there.
AUTO = {'encode': ('triton', ), 'upsampled_cross_entropy': ('triton', )}
BUILD = ('pip install --no-build-isolation . from a checkout, with nvcc and the '
         'CUDA build of PyTorch')

logger = logging.getLogger('mmseg_encstdc.ops')


class Operator(NamedTuple):
    """An operator and what computes it.

    ``modules`` has the module's full name for each backend: ``forward``,
    ``backward`` and, but for torch, ``why_not(*tensors)``, which returns None or
    why the tensors are not taken. ``example(dtype)`` makes the arguments of the
    self-check; ``outputs(module, *example)`` computes forward and backward;
    ``tolerances`` has the largest accepted error over the largest value of each
    output, for each type.
    """
    name: str
    modules: Dict[str, str]
    example: Callable[[torch.dtype], Tuple[Tensor, ...]]
    outputs: Callable[..., Dict[str, Tensor]]
    tolerances: Dict[torch.dtype, Dict[str, float]]


OPERATORS: Dict[str, Operator] = {}  # each room adds its own


def define(schema: str, compute: Callable, fake: Callable, gradient: Callable,
           setup_context: Optional[Callable] = None) -> None:
    """Register an operator of the library mmseg_encstdc, computed without autocast.

    torch.library.custom_op would import torch.compile at its first call.
    """
    name = f'mmseg_encstdc::{schema[:schema.index("(")]}'

    def without_autocast(first, *rest):
        with torch.autocast(first.device.type, enabled=False):
            return compute(first, *rest)

    torch.library.define(name, schema[schema.index('('):],
                         tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(name, 'default')(without_autocast)
    torch.library.register_fake(name)(fake)
    torch.library.register_autograd(name, gradient, setup_context=setup_context)


def choose(name: str, *tensors: Tensor) -> ModuleType:
    """Return the module that computes the operator ``name`` for these tensors.

    Raises:
        ValueError: when the variable names no backend.
        RuntimeError: when the backend that it names cannot compute this.
    """
    operator, asked = OPERATORS[name], requested()
    if asked == 'torch' or not all(tensor.numel() for tensor in tensors):
        return import_module(operator.modules['torch'])
    if asked in operator.modules:
        reason = _why_not(operator, asked, *tensors)
        if reason:
            raise RuntimeError(f'{VARIABLE}={asked}, but {reason}')
        return import_module(operator.modules[asked])
    device, dtype = tensors[0].device, tensors[0].dtype
    for backend in AUTO[name] if accelerated(device) else ():
        if (not _why_not(operator, backend, *tensors)
                and passes_self_check(operator, backend, device, dtype)):
            return import_module(operator.modules[backend])
    return import_module(operator.modules['torch'])


def requested() -> str:
    """Return the value of MMSEG_ENCSTDC_BACKEND, ``auto`` where it is not set.

    Raises:
        ValueError: when it names no backend.
    """
    asked = os.environ.get(VARIABLE) or 'auto'
    if asked != 'auto' and asked not in BACKENDS:
        raise ValueError(f'{VARIABLE}={asked} names no backend; give one of auto, '
                         f'{", ".join(BACKENDS)}')
    return asked


def accelerated(device: torch.device) -> bool:
    """Return whether ``auto`` looks beyond plain PyTorch on a device."""
    return device.type == 'cuda'  # which is also what ROCm calls its GPUs


def in_forward_mode(*arguments: Tensor) -> bool:
    """Return whether forward-mode differentiation has a tangent of an argument."""
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(value).tangent is not None for value in arguments)


# --- What is in the way -------------------------------------------------------


def unavailable(operator: Operator, backend: str,
                device: torch.device) -> Optional[str]:
    """Return why a backend cannot run on a device, or None."""
    if backend not in operator.modules:
        return f'{operator.name} has no {backend} implementation'
    interpreted = backend == 'triton' and os.environ.get('TRITON_INTERPRET') == '1'
    if backend != 'torch' and device.type != 'cuda' and not interpreted:
        return f'{backend} computes on a GPU and not on {device}'
    if backend == 'triton' and find_spec('triton') is None:
        return ("Triton is not installed: pip install triton (PyTorch's wheels for "
                'Linux with CUDA or ROCm bring it)')
    if backend == 'cuda' and not load_extension():
        return f'the CUDA kernels are not built: {BUILD}'
    return _import_error(operator.modules[backend])


@cache
def _import_error(module: str) -> Optional[str]:
    """Return why a module cannot be imported, with one WARNING, or None."""
    try:
        import_module(module)
        return None
    except Exception as error:  # a Triton that does not fit this PyTorch
        logger.warning('%s cannot be imported, so another backend computes: %s',
                       module, _one_line(error))
        return f'{module} cannot be imported: {_one_line(error)}'


@cache
def load_extension() -> bool:
    """Load the CUDA C++ operators; return False where they are not built."""
    found = find_spec('mmseg_encstdc._cuda')
    if found is not None:
        torch.ops.load_library(found.origin)
    return found is not None


def _why_not(operator: Operator, backend: str, *tensors: Tensor) -> Optional[str]:
    return (unavailable(operator, backend, tensors[0].device)
            or import_module(operator.modules[backend]).why_not(*tensors))


# --- The self-check -----------------------------------------------------------

_lock = threading.RLock()
_errors: Dict[tuple, Optional[str]] = {}  # None where the check passed


def passes_self_check(operator: Operator, backend: str, device: torch.device,
                      dtype: torch.dtype) -> bool:
    """Return whether a backend is right on a device; check at the first call.

    Returns False, and checks nothing, while a CUDA graph is captured or a trace is
    recorded: the launches of the check must not become a part of either.
    """
    key = (operator.name, backend, device, dtype)
    with _lock:
        if key not in _errors:
            if (torch.jit.is_tracing() or torch.compiler.is_compiling() or
                    device.type == 'cuda' and
                    torch.cuda.is_current_stream_capturing()):
                return False
            _errors[key] = _find_error(*key[1:], operator=operator)
            if _errors[key]:
                logger.warning(
                    '%s: the %s backend failed its self-check on %s for %s, so the '
                    'torch backend computes in this process: %s', *key, _errors[key])
        return _errors[key] is None


def _find_error(backend: str, device: torch.device, dtype: torch.dtype,
                operator: Operator) -> Optional[str]:
    """Return what a backend gets wrong on the operator's example, or None."""
    example = operator.example(dtype)
    exact = [value.double() if value.is_floating_point() else value
             for value in example]
    expected = operator.outputs(import_module(operator.modules['torch']), *exact)
    waits = torch.cuda.get_sync_debug_mode() if device.type == 'cuda' else 0
    try:
        if waits:  # copying the results to the CPU waits for the GPU, once
            torch.cuda.set_sync_debug_mode(0)
        got = operator.outputs(import_module(operator.modules[backend]),
                               *(value.to(device) for value in example))
        for name, value in got.items():
            right = expected[name].double()
            if value.shape != right.shape:
                return f'{name} is {tuple(value.shape)}, not {tuple(right.shape)}'
            difference = (value.cpu().double() - right).abs().max()
            error = float(difference / right.abs().max())
            limit = operator.tolerances[dtype][name]
            if not error <= limit:  # NaN is an error too
                return (f'{name} differs by {error:.1e} of its largest value, '
                        f'{limit:.0e} is accepted')
        return None
    except Exception as error:  # whatever a compiler, a driver or a kernel raises
        return _one_line(error)
    finally:
        if waits:
            torch.cuda.set_sync_debug_mode(waits)


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ['no message']
    return f'{type(error).__name__}: {lines[0]}'
