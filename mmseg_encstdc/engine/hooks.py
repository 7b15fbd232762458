"""Hooks for runs that start from a checkpoint."""
import os.path as osp
import re

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from .checkpoints import fitting

__all__ = ['ForgetForeignBest', 'SelectFitting']


class ForgetForeignBest(Hook):
    """Keep a resumed run from deleting the best checkpoint of another.

    MMEngine takes the path of the best checkpoint from the file that it resumes
    from, and deletes that file once this run has a better one, even in another
    work dir.
    """
    priority = 'HIGH'  # before CheckpointHook reads the path

    def before_train(self, runner: Runner) -> None:
        """Forget the path unless it is in this run's work dir."""
        best = runner.message_hub.runtime_info.get('best_ckpt')
        if best and osp.dirname(osp.abspath(best)) != osp.abspath(
                runner.work_dir):
            runner.message_hub.pop_info('best_ckpt')


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
