"""Define operators, and choose their implementation.

``torch`` is plain PyTorch and runs on every device. ``triton`` runs on a GPU where
Triton is installed, as it is with PyTorch's CUDA and ROCm wheels for Linux.
``cuda`` is the CUDA C++ extension, which must be built. The environment variable
MMSEG_ENCSTDC_BACKEND, read at every call, chooses:

    auto    on a GPU the first backend in :data:`AUTO` that accepts the arguments and
            passes its self-check; otherwise torch
    torch, triton, cuda
            that backend, without a self-check; a RuntimeError if it cannot compute.
            For an operator without this implementation, the same as auto.

The self-check runs once per operator, device and type. It compares forward and
backward of a small example with the torch backend in float64. If the difference
exceeds the documented tolerance, or an exception is raised, it logs one WARNING and
the torch backend computes for the rest of the process.
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
# Backends that auto tries on a GPU, in this order, for each operator. Add cuda when a
# file in benchmarks/results shows that its tests passed on a GPU, before triton if it
# was faster.
AUTO = {'encode': ('triton', ), 'upsampled_cross_entropy': ('triton', )}
BUILD = ('pip install --no-build-isolation . from a checkout, with nvcc and the '
         'CUDA build of PyTorch')

logger = logging.getLogger('mmseg_encstdc.ops')


class Operator(NamedTuple):
    """Describe an operator, its implementations and its self-check.

    Args:
        name: of the operator.
        modules: backend -> full name of a module with ``forward``, ``backward`` and,
            except for torch, ``why_not(*tensors)``, which returns why it does not
            accept the tensors, or None.
        example: makes the arguments of the self-check in a type.
        outputs: computes forward and backward of a module for these arguments.
        tolerances: type -> output -> largest error over largest value, accepted.
    """
    name: str
    modules: Dict[str, str]
    example: Callable[[torch.dtype], Tuple[Tensor, ...]]
    outputs: Callable[..., Dict[str, Tensor]]
    tolerances: Dict[torch.dtype, Dict[str, float]]


OPERATORS: Dict[str, Operator] = {}  # each operator's folder adds its own


def define(schema: str, compute: Callable, fake: Callable, gradient: Callable,
           setup_context: Optional[Callable] = None) -> None:
    """Register an operator of the library mmseg_encstdc, computed without autocast.

    torch.library.custom_op would import torch.compile at its first call.

    Args:
        schema: name, arguments and outputs, as torch.library.define takes them.
        compute: the implementation.
        fake: returns outputs without data, for tracing.
        gradient: backward function for autograd.
        setup_context: saves tensors for ``gradient``.
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
        ValueError: when MMSEG_ENCSTDC_BACKEND names no backend.
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
    """Return the value of MMSEG_ENCSTDC_BACKEND, by default ``auto``.

    Raises:
        ValueError: when it names no backend.
    """
    asked = os.environ.get(VARIABLE) or 'auto'
    if asked != 'auto' and asked not in BACKENDS:
        raise ValueError(f'{VARIABLE}={asked!r} names no backend; give one of auto, '
                         f'{", ".join(BACKENDS)}')
    return asked


def accelerated(device: torch.device) -> bool:
    """Return whether ``auto`` may choose a backend other than torch on a device."""
    return device.type == 'cuda'  # for ROCm too


def in_forward_mode(*arguments: Tensor) -> bool:
    """Return whether an argument has a tangent of forward-mode differentiation."""
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(value).tangent is not None for value in arguments)


# --- Availability -------------------------------------------------------------


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
    """Return why a module cannot be imported, after one WARNING, or None."""
    try:
        import_module(module)
        return None
    except Exception as error:  # a Triton that does not fit this PyTorch
        logger.warning('%s cannot be imported, so another backend computes: %s',
                       module, _one_line(error))
        return f'{module} cannot be imported: {_one_line(error)}'


@cache
def load_extension() -> bool:
    """Load the CUDA C++ operators; return False if they are not built."""
    found = find_spec('mmseg_encstdc._cuda')
    if found is not None:
        torch.ops.load_library(found.origin)
    return found is not None


def _why_not(operator: Operator, backend: str, *tensors: Tensor) -> Optional[str]:
    """Return why a backend cannot compute an operator for these tensors, or None."""
    return (unavailable(operator, backend, tensors[0].device)
            or import_module(operator.modules[backend]).why_not(*tensors))


# --- The self-check -----------------------------------------------------------

_lock = threading.RLock()
_errors: Dict[tuple, Optional[str]] = {}  # None where the check passed


def passes_self_check(operator: Operator, backend: str, device: torch.device,
                      dtype: torch.dtype) -> bool:
    """Return whether a backend passes its self-check.

    The check runs when a backend is first needed for an operator, a device and a
    type. While a CUDA graph is captured, or torch.jit or torch.compile traces, return
    False without a check: the check would become part of the graph or the trace.
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
    """Return how a backend fails on the operator's example, or None."""
    example = operator.example(dtype)
    exact = [value.double() if value.is_floating_point() else value
             for value in example]
    expected = operator.outputs(import_module(operator.modules['torch']), *exact)
    waits = torch.cuda.get_sync_debug_mode() if device.type == 'cuda' else 0
    try:
        if waits:  # copying the results to the CPU waits for the GPU
            torch.cuda.set_sync_debug_mode(0)
        got = operator.outputs(import_module(operator.modules[backend]),
                               *(value.to(device) for value in example))
        for name, value in got.items():
            exact_value = expected[name].double()
            if value.shape != exact_value.shape:
                return (f'{name} is {tuple(value.shape)}, not '
                        f'{tuple(exact_value.shape)}')
            difference = (value.cpu().double() - exact_value).abs().max()
            error = float(difference / exact_value.abs().max())
            limit = operator.tolerances[dtype][name]
            if not error <= limit:  # true for NaN
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
