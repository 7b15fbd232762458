"""Tell apart versions of the stack by what they do."""
import functools

import torch

__all__ = ['counts_ignored_class', 'swaps_channels']


def swaps_channels(preprocessor) -> bool:
    """Return whether a data preprocessor turns BGR images to RGB, or back."""
    return any(getattr(preprocessor, name, False)
               for name in ('channel_conversion', '_channel_conversion'))


@functools.cache
def counts_ignored_class() -> bool:
    """Return whether the stack's weighed cross entropy counts ignored pixels.

    Without ``avg_non_ignore`` MMSegmentation divides by the weights of all pixels
    whose id is a class, the fork by those of the others. Two pixels, one of them
    ignored, of loss log 2 = 0.69 tell.
    """
    from mmseg.models.losses.cross_entropy_loss import cross_entropy
    loss = cross_entropy(
        torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]),
        class_weight=torch.ones(2), ignore_index=1)
    return bool(loss < 0.5)
