"""Compare what a run asks for with what the state that it resumes from holds."""
from typing import Any, Iterator, List, Tuple

from mmengine.config import Config
from mmengine.dist import get_world_size

from ..errors import InputError
from .config_text import config_values
from .resume import State

__all__ = ['check_resumable', 'differences']

COMPARED = ('model', 'train_dataloader', 'optim_wrapper', 'train_cfg', 'randomness')
# Settings whose change does not change the training.
HARMLESS = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor',
            'val_interval', 'val_begin', 'init_cfg', 'pretrained')
# Settings that are in the saved optimizer, or of the saved state.
HELD = ('optim_wrapper.optimizer.', 'optim_wrapper.paramwise_cfg.')
SHOWN = 8  # differences that are listed
LONGEST = 60  # characters of a value


def check_resumable(cfg: Config, state: State) -> None:
    """Raise InputError unless a training can go on from a state.

    Args:
        cfg: a whole experiment.
        state: what ``find_state`` returns.

    Raises:
        InputError: naming what is missing, or an optimizer of another type.
    """
    path, content = state
    needed = ['optimizer', 'message_hub']
    if cfg.get('param_scheduler'):
        needed.append('param_schedulers')
    missing = [name for name in needed if name not in content]
    missing += [f'meta.{name}' for name in ('iter', 'epoch')
                if not isinstance(content['meta'].get(name), int)]
    if missing:
        raise InputError(
            f'{path} has no {" and no ".join(missing)}, so that no training can '
            'continue from it; --resume takes iter_*.pth or epoch_*.pth, and '
            f'--cfg-options load_from={path} starts a new training from its weights')
    old = dict(_leaves(_saved(content), '')).get('optim_wrapper.optimizer.type')
    new = dict(_leaves(_plain(cfg), '')).get('optim_wrapper.optimizer.type')
    if old and new and old != new:
        raise InputError(
            f'optim_wrapper.optimizer.type is {new}, {path} holds the state of {old}; '
            f'--cfg-options load_from={path} without --resume starts a new training '
            'from its weights')


def differences(cfg: Config, state: State, with_config: bool) -> List[str]:
    """Return one line for each setting that differs, with which one is used.

    Args:
        cfg: a whole experiment.
        state: what ``find_state`` returns.
        with_config: whether the config's settings of the optimizer are used.
    """
    saved, lines = _saved(state.content), []
    if not saved:
        return [f'the settings of {state.path} cannot be read and are not compared']
    info = state.content['message_hub'].get('runtime_info', {})
    processes = info.get('processes', get_world_size())
    changes = list(_changes(_plain(cfg), saved))
    if processes != get_world_size():
        changes.insert(0, ('the number of processes', get_world_size(), processes))
    for key, new, old in changes:
        held = key == 'randomness.seed' or key.startswith(HELD) and not with_config
        remedy = ('; --resume-with-config uses the config' if held and
                  key.startswith(HELD) else '')
        lines.append(f'{key} is {_short(new)}, in the checkpoint {_short(old)}: '
                     f'{_short(old if held else new)} is used{remedy}')
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f'{len(lines) - SHOWN} other settings differ too']
    counts = cfg.optim_wrapper.get('accumulative_counts', 1)
    if counts > 1 and state.content['meta']['iter'] % counts:
        lines.append('the gradients that optim_wrapper.accumulative_counts='
                     f'{counts} had accumulated are not in the checkpoint')
    return lines


def _saved(content: dict) -> dict:
    """Return the config in a checkpoint; empty where it is no plain text."""
    try:
        return config_values(content['meta'].get('cfg') or '')
    except ValueError:
        return {}


def _plain(cfg: Config) -> dict:
    """Return the compared parts of a config."""
    return {key: cfg[key] for key in COMPARED if cfg.get(key) is not None}


def _changes(asked: dict, saved: dict) -> Iterator[Tuple[str, Any, Any]]:
    """Yield key, new and old value of each setting that differs."""
    for part in COMPARED:
        new = dict(_leaves(asked.get(part), part))
        old = dict(_leaves(saved.get(part), part))
        for key in sorted({*new, *old}):
            if new.get(key) != old.get(key) and not {*key.split('.')} & {*HARMLESS}:
                yield key, new.get(key), old.get(key)


def _leaves(part: Any, key: str) -> Iterator[Tuple[str, Any]]:
    """Yield the dotted key and the value of all that is no dict and no list of dicts.

    A class counts as its name.
    """
    if isinstance(part, dict):
        for name, child in part.items():
            yield from _leaves(child, f'{key}.{name}' if key else str(name))
    elif isinstance(part, (list, tuple)) and any(isinstance(c, dict) for c in part):
        for i, child in enumerate(part):
            yield from _leaves(child, f'{key}.{i}')
    elif isinstance(part, (list, tuple)):
        yield key, list(part)
    else:
        yield key, part.__name__ if isinstance(part, type) else part


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else text[:LONGEST - 3] + '...'
