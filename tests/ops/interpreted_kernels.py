"""Run Triton kernels on CPU tensors by Triton's interpreter."""
import importlib.util
import os
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Optional
from unittest import mock

import numpy as np
import pytest
import torch

import mmseg_encstdc.ops


def source_of(operator: str) -> Path:
    """Return the file of an operator's Triton kernels."""
    return Path(mmseg_encstdc.ops.__file__).parent / operator / 'triton.py'


def interpreted(operator: str, path: Optional[Path] = None) -> ModuleType:
    """Load ``ops/<operator>/triton.py``, or a changed copy, for the interpreter.

    Call its functions in :func:`interpreter`. Skips the test where Triton is not
    installed.
    """
    pytest.importorskip('triton', reason='Triton is not installed')
    path = path or source_of(operator)
    spec = importlib.util.spec_from_file_location(f'interpreted_{operator}', path)
    module = importlib.util.module_from_spec(spec)
    # Triton reads it when it decorates a function.
    with mock.patch.dict(os.environ, TRITON_INTERPRET='1'):
        spec.loader.exec_module(module)
    return module


@contextmanager
def interpreter():
    """Replace Triton's compiled functions, such as tl.sum, by interpreted ones.

    They are decorated when Triton is imported, which may have been before.
    """
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction
    with suppress(ImportError):  # a launch imports it, and it needs the replaced
        import triton.experimental.gluon  # noqa: F401
    library = {name: InterpretedFunction(value.fn)
               for name, value in vars(tl.standard).items()
               if isinstance(value, JITFunction)}
    with ExitStack() as stack:
        for module in (tl, tl.standard):
            stack.enter_context(mock.patch.multiple(module, **{
                name: value for name, value in library.items()
                if isinstance(vars(module).get(name), JITFunction)}))
        stack.enter_context(bfloat16_as_on_a_gpu())
        yield


def bfloat16_as_on_a_gpu():
    """Let the interpreter round to bfloat16, and multiply bfloat16 values.

    It stores bfloat16 as integer bits, which tl.dot of Triton 3.9 multiplies as
    integers, and truncates where a GPU rounds to nearest.
    """
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle
    cast, dot = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot

    def rounding_cast(builder, value, dtype):
        if (value.dtype.scalar, dtype.scalar) != (tl.float32, tl.bfloat16):
            return cast(builder, value, dtype)
        rounded = torch.from_numpy(np.array(value.data)).bfloat16()
        return TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16),
                            tl.bfloat16)

    def dot_of_values(builder, left, right, *others):
        left, right = (
            cast(builder, value, tl.float32)
            if value.dtype.scalar == tl.bfloat16 else value
            for value in (left, right))
        return dot(builder, left, right, *others)

    return mock.patch.multiple(
        InterpreterBuilder, cast_impl=rounding_cast, create_dot=dot_of_values)
