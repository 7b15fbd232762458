"""Build the dropout layer of a head."""
from typing import Optional

from torch import nn

__all__ = ['build_dropout']


def build_dropout(kind: str, ratio: float) -> Optional[nn.Module]:
    """Return ``nn.Dropout`` or ``nn.Dropout2d``; None for a ratio of 0.

    Raises:
        ValueError: when ``kind`` is neither 'Dropout' nor 'Dropout2d'.
    """
    layers = {'Dropout': nn.Dropout, 'Dropout2d': nn.Dropout2d}
    if kind not in layers:
        raise ValueError(f'dropout_type must be one of {sorted(layers)}, got {kind!r}')
    return layers[kind](ratio) if ratio > 0 else None
