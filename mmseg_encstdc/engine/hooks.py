"""Hooks that prepare the model of a training."""
import re

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from .checkpoints import fitting

__all__ = ['ChannelsLast', 'SelectFitting']


class ChannelsLast(Hook):
    """Store the weights of convolutions with their channels last.

    PyTorch then computes in this layout, which is faster on most CPUs and on GPUs with
    tensor cores. Sums are added in another order, so results differ by rounding.
    Checkpoints do not depend on the layout.
    """

    def before_train(self, runner: Runner) -> None:
        """Change the layout of the weights."""
        runner.model.to(memory_format=torch.channels_last)


class SelectFitting(Hook):
    """Start from the weights of ``load_from`` that fit, and say in one line which.

    MMEngine lists each weight that differs, in many lines, and also starts where none
    fits.

    Raises:
        InputError: when none fits.
    """
    priority = 'VERY_HIGH'  # before hooks that read the weights

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Replace the weights in the checkpoint by those that fit and the model's."""
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        bare = 'state_dict' not in checkpoint
        state = {re.sub(r'^module\.', '', key): value for key, value in
                 (checkpoint if bare else checkpoint['state_dict']).items()}
        fits, line = fitting(model, state, runner._load_from)
        if bare:
            checkpoint.clear()
        checkpoint['state_dict'] = {**model.state_dict(), **fits}
        runner.logger.info(line)
