"""The parts of tools/check_kernels.py: ``cuda`` compiles with nvcc, ``triton``
compiles ahead of time."""
from typing import List, NamedTuple, Optional

__all__ = ['Report', 'Row']


class Row(NamedTuple):
    """A line of the table: what a compiler says of kernels for one GPU."""
    kernels: str  # a file, or an operator and its kernel
    target: str  # sm_90, gfx942
    compiled: int  # how many kernels or variants of one
    registers: int  # of a thread, the largest
    spilled_bytes: int  # of all
    shared_bytes: Optional[int]  # of a block, the largest; None: not reported
    tensor_core_instructions: int  # of all


class Report(NamedTuple):
    """What one compiler says."""
    rows: List[Row]
    faults: List[str]  # one line each, except what a compiler wrote
