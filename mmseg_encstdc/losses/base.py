"""Define the base class of the losses for a head's ``loss_decode``."""
from torch import nn

__all__ = ['DecodeLoss']


class DecodeLoss(nn.Module):
    """Hold the weight and the name of a loss.

    Args:
        loss_weight: factor of the loss.
        loss_name: key in the log; MMEngine trains on keys that contain 'loss' only.

    Raises:
        ValueError: when ``loss_name`` does not contain 'loss'.
    """

    def __init__(self, loss_weight: float, loss_name: str):
        super().__init__()
        if 'loss' not in loss_name:
            raise ValueError("loss_name must contain 'loss', or the value is "
                             f'logged but never trained on; got {loss_name!r}')
        self.loss_weight = loss_weight
        self.loss_name = loss_name
