"""Print which backend computes each operator on each device, and why.

Runs the self-checks that ``auto`` runs at its first use.
"""
import sys
from typing import Iterator, Tuple

import torch

from . import backend

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def rows() -> Iterator[Tuple[str, str, str, str]]:
    """Yield the headings, then operator, device, backend and whether it can run."""
    count = torch.cuda.device_count()
    yield 'operator', 'device', 'backend', 'state'
    for device in ('cpu', *(f'cuda:{i}' for i in range(count))):
        for operator in backend.OPERATORS.values():
            for name in backend.BACKENDS:
                yield operator.name, device, name, state(
                    operator, name, torch.device(device))
        yield 'kth_largest', device, 'torch', 'auto takes it; there is no other'


def state(operator: backend.Operator, name: str, device: torch.device) -> str:
    """Describe whether a backend is available, and whether and why auto takes it."""
    reason = backend.unavailable(operator, name, device)
    if reason:
        return f'not available: {reason}'
    if name == 'torch':
        return 'auto takes it where it takes no other'
    if name not in backend.AUTO[operator.name]:
        return (f'available with {backend.VARIABLE}={name}; auto leaves it out, as '
                'no run on a GPU is on record')
    failed = [str(dtype) for dtype in TYPES if not backend.passes_self_check(
        operator, name, device, dtype)]
    if failed:
        return f'auto leaves it out for {", ".join(failed)}: see the warning'
    return 'auto takes it: its self-check passed; float64 goes to torch'


def main() -> None:
    try:
        asked = backend.requested()
    except ValueError as error:
        sys.exit(f'error: {error}')
    for cells in rows():
        print('{:<25}{:<8}{:<9}{}'.format(*cells))
    print(f'{backend.VARIABLE}={asked}' + (
        '' if asked == 'auto' else ': auto does not choose'))


if __name__ == '__main__':
    main()
