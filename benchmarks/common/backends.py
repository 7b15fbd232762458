"""The backends of an operator that can run, and one of them for a while."""
import os
from contextlib import contextmanager
from typing import Iterator, Tuple

import torch

from mmseg_encstdc.ops import backend

__all__ = ['available', 'forced']


def available(operator: str, device: torch.device) -> Tuple[str, ...]:
    """Return those of torch, triton and cuda that compute an operator there.

    A CPU has torch alone: Triton's interpreter is there to test.
    """
    if device.type == 'cpu':
        return ('torch', )
    return tuple(name for name in backend.BACKENDS if not backend.unavailable(
        backend.OPERATORS[operator], name, device))


@contextmanager
def forced(name: str) -> Iterator[None]:
    """Make the operators take a backend; any other name leaves the choice as it is."""
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
