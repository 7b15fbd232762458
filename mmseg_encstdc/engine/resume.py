"""Find the state of a training to continue from."""
import os
import os.path as osp
import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from ..compat import say_once
from ..errors import InputError
from .checkpoints import listed, read_checkpoint
from .reproducer import BAD_LOSS

__all__ = ['State', 'find_state', 'is_finished', 'newest_checkpoint']

NAME = re.compile(r'(.*?)(\d+)\.pth')  # iter_600.pth, epoch_3.pth


class State(NamedTuple):
    """A checkpoint of a training: its path and what is in it.

    ``content`` is empty for a path that is no local file.
    """
    path: str
    content: dict


def newest_checkpoint(*folders: str) -> Optional[State]:
    """Return the newest readable checkpoint of a training, or None if it has none.

    The file ``last_checkpoint`` is not read, because it may be missing, out of date or
    name a folder that was moved. Newest is the largest iteration. One line names each
    file that is left out because it is damaged.

    Args:
        folders: where checkpoints may be; not all need to exist.

    Raises:
        InputError: when there are checkpoints, but none to continue from.
    """
    found, files, damaged = [], [], []
    for folder in dict.fromkeys(map(osp.abspath, folders)):
        for paths in _numbered(folder).values():
            state = _first_readable(paths, damaged)
            found += [state] if state else []
        files += [osp.join(folder, name) for name in _checkpoints_in(folder)]
    if found:
        for path in damaged:
            say_once(f'{path} is damaged and left out')
        return max(found, key=lambda state: state.content['meta']['iter'])
    if files:
        raise InputError(
            f'there is no checkpoint to continue from: {listed(damaged or files)} '
            f'{"cannot be read" if damaged else "has no iteration"}; remove it to '
            'start anew, or give the checkpoint as --resume FILE')
    return None


def _checkpoints_in(folder: str) -> List[str]:
    """Return the names of checkpoints; a file for ``--replay`` is none."""
    return sorted(name for name in os.listdir(folder)
                  if name.endswith('.pth') and not name.startswith(BAD_LOSS)
                  ) if osp.isdir(folder) else []


def _numbered(folder: str) -> Dict[str, List[str]]:
    """Return the paths of checkpoints by prefix of their name, newest first."""
    found: Dict[str, List[Tuple[int, str]]] = {}
    for name in _checkpoints_in(folder):
        match = NAME.fullmatch(name)
        if match and not name.startswith('best_'):
            found.setdefault(match[1], []).append(
                (int(match[2]), osp.join(folder, name)))
    return {prefix: [path for _, path in sorted(files, reverse=True)]
            for prefix, files in found.items()}


def _first_readable(paths: List[str], damaged: List[str]) -> Optional[State]:
    """Return the first state that can be read; add others to ``damaged``."""
    for path in paths:
        try:
            content = read_checkpoint(path)
        except InputError:
            damaged.append(path)
            continue
        if isinstance(content['meta'].get('iter'), int):
            return State(path, content)
    return None


def find_state(cfg: Config, asked: Optional[str]) -> Optional[State]:
    """Return the state that a run continues from, and say which.

    Args:
        cfg: a whole experiment with its ``work_dir``.
        asked: a file; 'auto' for the newest of the work dir; None for what the config
            says with ``resume`` and ``load_from``.

    Returns:
        None where a run starts anew: it asks for no state, or there is none.

    Raises:
        InputError: when the file cannot be read, or the work dir has only files from
            which a training cannot continue.
    """
    start = cfg.get('load_from')
    if asked is None:
        if not cfg.get('resume'):
            return None
        asked = start or 'auto'
    if asked != 'auto':
        if '://' in asked:
            return State(asked, {})
        _name_newer(asked)
        return State(asked, read_checkpoint(asked, '--resume'))
    folders = _folders(cfg)
    pointed = find_latest_checkpoint(cfg.work_dir) if any(
        '://' in folder for folder in folders) else None
    state = State(pointed, {}) if pointed else newest_checkpoint(*folders)
    other = f'load_from {start} of the config' if start else 'the beginning'
    if state is None:
        say_once(f'{cfg.work_dir} has no checkpoint: training starts from {other}')
    elif start:
        say_once(f'training continues from {state.path}; {other} is not used')
    return state


def _name_newer(path: str) -> None:
    """Say which checkpoints beside this one ``--resume`` alone would prefer."""
    for paths in _numbered(osp.dirname(osp.abspath(path))).values():
        if osp.abspath(path) in paths[1:]:
            say_once(f'{paths[0]} is newer than {path}; --resume without a file '
                     'continues from the newer one')


def _folders(cfg: Config) -> List[str]:
    """Return where checkpoints of a run may be: the work dir, ``out_dir`` of a hook."""
    found = [cfg.work_dir]
    for hook in (cfg.get('default_hooks') or {}).values():
        if isinstance(hook, dict) and hook.get('out_dir'):
            found.append(osp.join(str(hook['out_dir']), osp.basename(
                cfg.work_dir.rstrip('/'))))
    return found


def is_finished(cfg: Config, state: State, max_iters: Optional[int] = None) -> bool:
    """Return whether a training has nothing left to do.

    Args:
        cfg: a whole experiment.
        state: to continue from.
        max_iters: length of the run, in place of the config's.
    """
    if not state.content:
        return False
    meta = state.content['meta']
    length = max_iters or cfg.train_cfg.get('max_iters')
    done = meta.get('iter')
    if not length:
        length, done = cfg.train_cfg.get('max_epochs'), meta.get('epoch')
    info = state.content.get('message_hub', {}).get('runtime_info', {})
    return (isinstance(length, int) and isinstance(done, int) and done >= length
            and not info.get('needs_validation'))
