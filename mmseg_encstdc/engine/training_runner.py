"""MMEngine's runner, for trainings that can be stopped at any moment."""
from typing import Optional, Union

from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import (
    BaseLoop,
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    Runner,
)

from .loops import SeededEpochLoop, SeededIterLoop
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

    def continue_from(self, path: str) -> None:
        """Resume from a checkpoint when training begins."""
        self._load_from, self._resume = path, True
