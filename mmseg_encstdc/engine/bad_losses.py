"""Stop a training at a loss or gradient that is NaN or infinite."""
import functools
import os.path as osp
from typing import Callable, Dict, List, Optional, Tuple

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from ..errors import InputError
from .checkpoints import listed, not_finite
from .reproducer import BAD_LOSS, random_state, write_step

__all__ = ['StopAtBadLoss']

COUNT = 'skipped_bad_losses'  # in the message hub, which checkpoints keep


class StopAtBadLoss(Hook):
    """Check the loss and the gradients between the backward pass and the step.

    A loss that is not finite makes all gradients NaN, so after their exchange every
    process sees it. One number is read from the device per step. Gradients that are
    too large for a loss scale above 1 are left to the scaler, which skips the step.
    Several optimizers (MMEngine's OptimWrapperDict) are not watched, only the weights.

    Args:
        skip: at most how many steps to leave out; weights, optimizer state and
            buffers, such as the statistics of batch norm, stay as before the step.

    Raises:
        InputError: after ``skip`` such steps, with the iteration, the loss or weight,
            the images and the file that replays the step; and before weights that are
            not finite are saved.
    """
    priority = 'VERY_HIGH'  # before a checkpoint is saved

    def __init__(self, skip: int = 0):
        if not isinstance(skip, int) or isinstance(skip, bool) or skip < 0:
            raise InputError(f'bad_losses.skip is {skip!r}; give a whole number from '
                             '0 up')
        self.skip = skip
        # (iteration, batch, state of the random generators) since the last step, and
        # the losses of each.
        self._batches: List[Tuple[int, dict, dict]] = []
        self._losses: List[Dict[str, Tensor]] = []

    def before_train(self, runner: Runner) -> None:
        """Watch the model's losses and the optimizer's step."""
        wrapper = runner.optim_wrapper
        self._model = _unwrapped(runner)
        self._buffers = list(self._model.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]
        if isinstance(wrapper, OptimWrapper):
            self._model.parse_losses = self._watching(self._model.parse_losses)
            wrapper.step = self._guarding(runner, wrapper.step)

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: Optional[dict] = None) -> None:
        """Keep what the step may change or use up."""
        if not self._batches:
            for kept, buffer in zip(self._kept, self._buffers):
                kept.copy_(buffer)
        self._batches.append((runner.iter + 1, data_batch, random_state()))

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Keep weights that are not finite from becoming the best."""
        self._check_weights(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep weights that are not finite from replacing older checkpoints."""
        self._check_weights(runner)

    def _check_weights(self, runner: Runner) -> None:
        name = not_finite(_unwrapped(runner))
        if name:
            raise InputError(f'{name} holds NaN or infinity after iteration '
                             f'{runner.iter}, so it is not saved; continue from the '
                             'last checkpoint with --resume and a lower learning rate')

    def _watching(self, parse_losses: Callable) -> Callable:
        """Return ``parse_losses`` that gives bad losses NaN gradients."""

        def parse(losses: dict) -> Tuple[Tensor, Dict[str, Tensor]]:
            total, parts = parse_losses(losses)
            self._losses.append(parts)
            return total * (1 + 0 * total.detach()), parts

        return parse

    def _guarding(self, runner: Runner, step: Callable) -> Callable:
        """Return ``step`` of the optimizer that is left out after a bad loss."""

        @functools.wraps(step)  # with the mark of MMEngine's schedulers
        def guarded(**kwargs) -> None:
            gradients = [p.grad for group in runner.optim_wrapper.param_groups
                         for p in group['params'] if p.grad is not None]
            if _all_finite(gradients) or self._may_step(runner):
                step(**kwargs)
            self._batches.clear()
            self._losses.clear()

        return guarded

    def _may_step(self, runner: Runner) -> bool:
        """Judge gradients that are not finite; return False if the step is left out."""
        names = [_bad_loss(parts) for parts in self._losses]
        index = next((i for i, name in enumerate(names) if name), -1)
        bad = all_gather_object(names[index] if names else '')  # of each process
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if scaler is not None and not any(bad) and scaler.get_scale() > 1:
            return True  # the scaler leaves the step out, and lowers its scale
        hub = runner.message_hub
        skipped = hub.get_info(COUNT) if COUNT in hub.runtime_info else 0
        lines = all_gather_object(
            self._line(bad[get_rank()], index) if bad[get_rank()] or not any(bad)
            else '')
        line = next(filter(None, lines))
        if skipped >= self.skip:
            paths = all_gather_object(
                self._write(runner, index) if lines[get_rank()] else '')
            path = next(filter(None, paths))
            raise InputError(
                f'{line}; tools/train.py CONFIG --replay {path} repeats the step; '
                f'bad_losses=dict(skip={self.skip + 1}) in the config leaves out '
                f'{self.skip + 1} of them')
        for kept, buffer in zip(self._kept, self._buffers):
            buffer.copy_(kept)
        hub.update_info(COUNT, skipped + 1)
        runner.logger.warning(f'{line}; step {skipped + 1} of bad_losses.skip='
                              f'{self.skip} is left out')
        return False

    def _line(self, name: str, index: int) -> str:
        """Return what is not finite, at which iteration, and the images."""
        if not name:
            weights = ((n, p.grad) for n, p in self._model.named_parameters()
                       if p.grad is not None)
            name = 'the gradient of ' + next(
                n for n, g in weights if not torch.isfinite(g).all())
        iteration, batch, _ = self._batches[index]
        samples = batch.get('data_samples') or [] if isinstance(batch, dict) else []
        images = [str(getattr(sample, 'img_path', '?')) for sample in samples]
        return (f'iteration {iteration}: {name} is not finite; images '
                f'{listed(images) or "unknown"}')

    def _write(self, runner: Runner, index: int) -> str:
        """Write the file that replays the step, and return its path."""
        iteration, batch, states = self._batches[index]
        weights = self._model.state_dict()
        names = [name for name, _ in self._model.named_buffers()]
        weights.update({n: k for n, k in zip(names, self._kept) if n in weights})
        rank = f'_rank{get_rank()}' if get_world_size() > 1 else ''
        path = osp.join(runner.work_dir, f'{BAD_LOSS}iter_{iteration}{rank}.pth')
        write_step(path, batch=batch, state_dict=weights, random=states,
                   iteration=iteration, config=runner.cfg.pretty_text,
                   filename=str(runner.cfg.filename))
        return path


def _bad_loss(parts: Dict[str, Tensor]) -> str:
    """Return the name and value of the first loss that is not finite, or ''."""
    names = [name for name in parts if 'loss' in name and name != 'loss'] + ['loss']
    for name in names:
        if name in parts and not torch.isfinite(parts[name]).all():
            return f'loss {name}'
    return ''


def _all_finite(tensors: List[Tensor]) -> bool:
    """Return whether all values are finite.

    The norms tell, except where the sum of finite squares is too large.
    """
    if not tensors:
        return True
    norms = torch.stack(torch._foreach_norm(tensors))
    return bool(torch.isfinite(norms).all()) or all(
        bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _unwrapped(runner: Runner) -> torch.nn.Module:
    """Return the model inside the wrapper of several processes."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model
