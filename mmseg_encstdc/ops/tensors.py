"""Check the tensor arguments of an operator."""
import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_tensors(**tensors: Tensor) -> None:
    """Check that all are dense tensors on one device, the first with a float type.

    Raises:
        TypeError, ValueError: naming the argument and what is accepted.
    """
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise TypeError(f'{name} must be a tensor, got a '
                            f'{type(value).__name__}')
        if value.is_nested or value.layout != torch.strided:
            kind = 'nested' if value.is_nested else value.layout
            raise TypeError(f'{name} must be a dense tensor, got one that is {kind}')
    (name, first), *rest = tensors.items()
    if first.dtype not in FLOATS:
        raise TypeError(f'{name} must be float64, float32, bfloat16 or float16, got '
                        f'{first.dtype}')
    for other, value in rest:
        if value.device != first.device:
            raise ValueError(f'{other} must be on the device of {name}, '
                             f'{first.device}; got {value.device}')
