"""Hooks around MMEngine's own."""
import os.path as osp

from mmengine.hooks import Hook

__all__ = ['ForgetForeignBest']


class ForgetForeignBest(Hook):
    """Keep a resumed run from deleting the best checkpoint of another.

    MMEngine takes the path of the best checkpoint over from the file it
    resumes from, and removes it once this run has a better one, also where
    it lies in another work dir. It stands here and not in compat because it
    replaces nothing of MMEngine, whose runner calls it like any hook.
    """
    priority = 'HIGH'  # before CheckpointHook reads the path

    def before_train(self, runner) -> None:
        """Drop the path unless it lies in this run's work dir."""
        best = runner.message_hub.runtime_info.get('best_ckpt')
        if best and osp.dirname(osp.abspath(best)) != osp.abspath(
                runner.work_dir):
            runner.message_hub.pop_info('best_ckpt')
