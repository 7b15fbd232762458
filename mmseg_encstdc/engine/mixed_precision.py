"""Train in mixed precision, on a GPU or on a CPU with bfloat16 instructions."""
from contextlib import contextmanager
from typing import Iterator

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import nn

from ..errors import InputError

__all__ = ['BFloat16OptimWrapper', 'use_amp']

WRAPPERS = ('OptimWrapper', 'AmpOptimWrapper', 'BFloat16OptimWrapper')


class BFloat16OptimWrapper(OptimWrapper):
    """Compute convolutions and matrix products in bfloat16; weights stay float32.

    bfloat16 has the exponents of float32, so the loss needs no scale. MMEngine's
    AmpOptimWrapper refuses to run on a CPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Let PyTorch choose the type of each operator in the forward pass."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


def has_bfloat16() -> bool:
    """Return whether the CPU has instructions for bfloat16 (AVX512_BF16 or AMX)."""
    return any(getattr(torch.cpu, name, bool)() for name in (
        '_is_avx512_bf16_supported', '_is_amx_tile_supported'))


def use_amp(cfg: Config) -> None:
    """Set the config's optimizer wrapper to mixed precision.

    Args:
        cfg: a whole experiment; float16 with a loss scale on a GPU, bfloat16 on a CPU.

    Raises:
        InputError: when the CPU has no instructions for bfloat16, which makes it slower
            than float32, or when the config has another wrapper.
    """
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in WRAPPERS:
        raise InputError('--amp works with optim_wrapper.type OptimWrapper, the config '
                         f'has {wrapper}')
    if torch.cuda.is_available():
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    elif has_bfloat16():
        cfg.optim_wrapper.type = 'BFloat16OptimWrapper'
    else:
        raise InputError('--amp needs a GPU, or a CPU with instructions for bfloat16 '
                         '(AVX512_BF16 or AMX), which this one has not; leave it out')
