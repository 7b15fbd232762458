"""Find out how the installed versions behave."""
import functools

import torch
from torch import nn

__all__ = ['counts_ignored_class', 'swaps_channels']


def swaps_channels(preprocessor: nn.Module) -> bool:
    """Return whether a data preprocessor converts between BGR and RGB."""
    return any(getattr(preprocessor, name, False)
               for name in ('channel_conversion', '_channel_conversion'))


@functools.cache
def counts_ignored_class() -> bool:
    """Return whether mmseg's class-weighted mean counts ignored pixels.

    Without ``avg_non_ignore``, and with an ``ignore_index`` that is a class, the
    weighted cross entropy of MMSegmentation divides by the weights of all pixels,
    the fork's by those of the pixels that are not ignored. The loss of two pixels,
    one of them ignored, is log 2 / 2 or log 2.
    """
    from mmseg.models.losses.cross_entropy_loss import cross_entropy
    loss = cross_entropy(
        torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]),
        class_weight=torch.ones(2), ignore_index=1)
    return bool(loss < 0.5)
