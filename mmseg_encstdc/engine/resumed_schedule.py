"""Let the schedule of a config go on at the iteration of a checkpoint."""
import copy
import warnings
from typing import List

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import Runner

__all__ = ['apply_settings', 'load_schedule', 'restart_schedule',
           'schedule_change', 'settings_of']

# Attributes that a scheduler changes while it runs. The others are its settings.
RUNNING = ('last_step', '_global_step', '_last_value', 'base_values', 'verbose')


def _wrappers(optim: OptimWrapper) -> List[OptimWrapper]:
    return list(optim.values()) if isinstance(optim, OptimWrapperDict) else [optim]


def _flat(schedulers: object) -> list:
    """Return a list of schedulers of one optimizer or of several, by name."""
    if isinstance(schedulers, dict):
        return [one for name in sorted(schedulers) for one in schedulers[name]]
    return list(schedulers or [])


def schedule_change(schedulers: object, saved: object) -> str:
    """Return how the settings of schedulers differ from saved ones; '' if they do not.

    Args:
        schedulers: of a runner, just built.
        saved: their states in a checkpoint.
    """
    ours, theirs = _flat(schedulers), _flat(saved)
    if len(ours) != len(theirs):
        return f'{len(ours)} schedulers, {len(theirs)} in the checkpoint'
    for one, old in zip(ours, theirs):
        if getattr(one, 'need_val_args', False):
            continue  # it changes with what is measured
        for key, value in one.state_dict().items():
            if key not in RUNNING and old.get(key) != value:
                return (f'{key} of {type(one).__name__} is {value}, in the checkpoint '
                        f'{old.get(key)}')
    return ''


def load_schedule(schedulers: object, saved: object) -> None:
    """Set the states of schedulers to saved ones."""
    for one, old in zip(_flat(schedulers), _flat(saved)):
        one.load_state_dict(old)


def settings_of(optim: OptimWrapper) -> List[List[dict]]:
    """Return the settings of the parameter groups of each optimizer."""
    return [[{key: value for key, value in group.items() if key != 'params'}
             for group in wrapper.param_groups] for wrapper in _wrappers(optim)]


def apply_settings(optim: OptimWrapper, settings: List[List[dict]]) -> None:
    """Set what :func:`settings_of` returned."""
    for wrapper, groups in zip(_wrappers(optim), settings):
        for group, values in zip(wrapper.param_groups, groups):
            group.update(values)


def restart_schedule(runner: Runner) -> None:
    """Build the schedulers of the config anew, and step them to the run's iteration.

    The learning rate becomes that which a run has there with this schedule and with
    the first rates (``initial_lr``) of the optimizer.

    Args:
        runner: with an optimizer and the iteration of a state.
    """
    epoch_length = runner.iter // runner.epoch if runner.epoch else 0
    for wrapper in _wrappers(runner.optim_wrapper):
        for group in wrapper.param_groups:
            group.update({key[len('initial_'):]: group[key] for key in list(group)
                          if key.startswith('initial_')})
    kept = _flat(runner.param_schedulers)
    runner.param_schedulers = runner.build_param_scheduler(
        copy.deepcopy(runner.cfg.param_scheduler))
    schedulers = [one for one in _flat(runner.param_schedulers)
                  if not getattr(one, 'need_val_args', False)]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that the optimizer has made no step
        for done in range(1, runner.iter + 1):
            _step(schedulers, by_epoch=False)
            if epoch_length and done % epoch_length == 0:
                _step(schedulers, by_epoch=True)
    for old, new in zip(kept, _flat(runner.param_schedulers)):
        if getattr(new, 'need_val_args', False):
            new.load_state_dict(old.state_dict())


def _step(schedulers: List[_ParamScheduler], by_epoch: bool) -> None:
    for scheduler in schedulers:
        if scheduler.by_epoch == by_epoch:
            scheduler.step()
