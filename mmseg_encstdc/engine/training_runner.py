"""MMEngine's runner, for trainings that can be stopped at any moment."""
from typing import Optional, Sequence, Union

from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import (
    BaseLoop,
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    Runner,
)

from ..errors import InputError
from .loops import SeededEpochLoop, SeededIterLoop
from .resumed_schedule import (
    apply_settings,
    load_schedule,
    restart_schedule,
    schedule_change,
    settings_of,
)
from .saving import SafeCheckpointHook

__all__ = ['TrainingRunner']

# Classes of MMEngine, and what is built where a config names them.
REPLACED = {CheckpointHook: SafeCheckpointHook, IterBasedTrainLoop: SeededIterLoop,
            EpochBasedTrainLoop: SeededEpochLoop}
BY_NAME = {prefix + stock.__name__: own for stock, own in REPLACED.items()
           for prefix in ('', 'mmengine.')}


def _replaced(kind: object) -> object:
    """Return the class to build for a ``type`` of a config."""
    return (BY_NAME if isinstance(kind, str) else REPLACED).get(kind, kind)


class TrainingRunner(Runner):
    """Train with whole checkpoints and with loops that resume where they stopped.

    The config stays as it is, so that what is saved of it works without this package.
    """
    with_config = False
    _saved_schedulers = None

    def register_hook(self, hook: Union[Hook, dict],
                      priority: Optional[Union[str, int]] = None) -> None:
        """Add a hook; MMEngine's CheckpointHook becomes SafeCheckpointHook."""
        if isinstance(hook, dict):
            hook = {**hook, 'type': _replaced(hook.get('type'))}
        super().register_hook(hook, priority)

    def build_train_loop(self, loop: Union[BaseLoop, dict]) -> BaseLoop:
        """Build the train loop; MMEngine's own become those of ``loops``."""
        if isinstance(loop, dict) and ('type' in loop) != ('by_epoch' in loop):
            loop = dict(loop)
            stock = (EpochBasedTrainLoop if loop.pop('by_epoch', False) else
                     IterBasedTrainLoop)
            loop['type'] = _replaced(loop.get('type', stock))
        return super().build_train_loop(loop)

    def continue_from(self, path: str, with_config: bool = False,
                      lines: Sequence[str] = ()) -> None:
        """Resume from a checkpoint when training begins.

        Args:
            path: of the checkpoint.
            with_config: use the config's settings of the optimizer and its schedule,
                not those of the checkpoint.
            lines: to log then.
        """
        self._load_from, self._resume = path, True
        self.with_config = with_config
        for line in lines:
            self.logger.warning(line)

    def load_checkpoint(self, *args, **kwargs) -> dict:
        """Load a checkpoint; a config in it, which MMEngine executes, is left out."""
        content = super().load_checkpoint(*args, **kwargs)
        if isinstance(content.get('meta'), dict):
            content['meta'].pop('config', None)
        self._saved_schedulers = content.get('param_schedulers')
        return content

    def resume(self, filename: str, *args, **kwargs) -> None:
        """Resume; a schedule that differs from the checkpoint's is the config's."""
        fresh = settings_of(self.optim_wrapper)
        schedulers = self.param_schedulers
        try:
            super().resume(filename, *args, resume_param_scheduler=False, **kwargs)
        except ValueError as error:
            raise InputError(
                f'{filename} does not fit optim_wrapper: {error}; --resume needs the '
                'parameter groups of the checkpoint') from error
        if self.with_config:
            apply_settings(self.optim_wrapper, fresh)
        if not schedulers:
            return
        saved, self._saved_schedulers = self._saved_schedulers, None
        change = schedule_change(schedulers, saved)
        if not change:
            load_schedule(schedulers, saved)
        if change or self.with_config:
            restart_schedule(self)
            self.logger.warning(
                'the schedule is that of the config, from iteration '
                f'{self.iter} on' + (f': {change}' if change else ''))
