"""Hooks for resumed runs."""
import os.path as osp

from mmengine.hooks import Hook
from mmengine.runner import Runner

__all__ = ['ForgetForeignBest']


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
