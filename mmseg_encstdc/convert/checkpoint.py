"""What every conversion does: read, rename, compare with a model, write."""
import os
from typing import Callable, Dict, List, NamedTuple, Optional

import torch
from mmengine.config import Config
from torch import Tensor, nn

from .. import errors

__all__ = ['Conversion', 'fit', 'read', 'rename', 'save', 'unwrap']

State = Dict[str, Tensor]
SHOWN = 8  # keys that an error lists before it counts


class Conversion(NamedTuple):
    """The outcome of a conversion.

    Args:
        state (dict): key -> tensor, for the whole model or a backbone.
        left_out (list[str]): keys of the source that the target has no use for.
        part (str): what ``state`` fits, for the report.
    """
    state: State
    left_out: List[str]
    part: str


def read(path: str) -> dict:
    """The content of a checkpoint file; no pickled code is executed.

    Raises:
        InputError: when the file does not exist, is truncated or foreign, or
            holds what torch.load does not load with weights_only.
    """
    if not os.path.isfile(path):
        what = 'is a folder' if os.path.isdir(path) else 'does not exist'
        raise errors.InputError(f'checkpoint {path} {what}; give a file')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        # Not PyTorch's own words, which advise to execute what is pickled.
        raise errors.InputError(
            f'checkpoint {path} cannot be read: it must be a whole file of '
            'torch.save that holds tensors and plain values '
            f'({type(error).__name__})') from error
    if not isinstance(content, dict):
        raise errors.InputError(
            f'checkpoint {path} holds a {type(content).__name__}; it must be a '
            'state dict, or a dictionary with one as state_dict')
    return content


def unwrap(content: dict, path: str) -> State:
    """The authors' state dict, out of ``state_dict`` and without ``module.``.

    Raises:
        InputError: for a checkpoint of MMEngine, converted or not, and for one
            that is no state dict.
    """
    if isinstance(content.get('meta'), dict):
        source = content['meta'].get('converted_from')
        done = (f'was converted from {source} already' if source else
                "is a checkpoint of MMEngine, not the authors'")
        raise errors.InputError(
            f'checkpoint {path} {done}; use it as it is with the config it was '
            "made for, or convert the authors' file for another")
    state = content.get('state_dict', content)
    tensors = isinstance(state, dict) and state and all(
        isinstance(key, str) and isinstance(value, Tensor)
        for key, value in state.items())
    if not tensors:
        raise errors.InputError(
            f'checkpoint {path} holds no state dict; its entries are '
            f'{listed(map(str, content))}')
    return {key[len('module.'):] if key.startswith('module.') else key: value
            for key, value in state.items()}


def rename(state: State, name_of: Callable[[str], Optional[str]],
           path: str) -> Conversion:
    """Give every entry the name that ``name_of`` says, or leave it out.

    Raises:
        InputError: listing the keys that ``name_of`` raises a KeyError for.
    """
    renamed, left_out, unknown = {}, [], []
    for key, value in state.items():
        try:
            name = name_of(key)
        except KeyError:
            unknown.append(key)
            continue
        if name is None:
            left_out.append(key)
        else:
            renamed[name] = value
    if unknown:
        raise errors.InputError(
            f'checkpoint {path} has keys that are not known: {listed(unknown)}')
    return Conversion(renamed, left_out, '')


def fit(found: Conversion, model: nn.Module, part: str,
        path: str) -> Conversion:
    """Check that a state dict is exactly what a module takes.

    Counters of batches, which older versions of PyTorch did not keep, start at
    zero.

    Raises:
        InputError: listing what is missing, left over or of another shape.
    """
    state = dict(found.state)
    wanted = model.state_dict()
    for key, value in wanted.items():
        if key.endswith('num_batches_tracked'):
            state.setdefault(key, torch.zeros_like(value))
    faults = [(what, keys) for what, keys in (
        ('missing', wanted.keys() - state.keys()),
        ('unexpected', state.keys() - wanted.keys()),
        ('of another shape', [
            f'{key} {tuple(state[key].shape)} for {tuple(wanted[key].shape)}'
            for key in wanted.keys() & state.keys()
            if state[key].shape != wanted[key].shape])) if keys]
    if faults:
        raise errors.InputError(
            f'checkpoint {path} does not fit {part} of the config: ' + '; '.join(
                f'{what}: {listed(sorted(keys))}' for what, keys in faults))
    ordered = {key: state[key].to(value.dtype) for key, value in wanted.items()}
    return Conversion(ordered, found.left_out, part)


def listed(keys) -> str:
    """Names, as far as they fit in a line, and how many more there are."""
    keys = list(keys)
    more = f' and {len(keys) - SHOWN} more' if len(keys) > SHOWN else ''
    return ', '.join(keys[:SHOWN]) + more


def save(found: Conversion, path: str, cfg: Config, source: str) -> None:
    """Write a checkpoint of MMEngine, whole or not at all.

    Its meta names the classes and palette of the config's data set and what it
    was converted from.
    """
    from .. import __version__
    from ..engine.checks import datasets_of, metainfo_of
    dataset = next(datasets_of(cfg.test_dataloader.dataset))
    meta = {key: value for key, value in metainfo_of(dataset).items()
            if key in ('classes', 'palette') and not isinstance(value, str)}
    content = dict(
        state_dict=found.state,
        meta=dict(dataset_meta=meta, converted_from=source, part=found.part,
                  left_out=found.left_out, mmseg_encstdc_version=__version__))
    if os.path.isdir(path):
        raise errors.InputError(f'{path} cannot be written: it is a folder')
    partial = f'{path}.partial'
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        torch.save(content, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        raise errors.InputError(f'{path} cannot be written: {error}') from error
    finally:
        if os.path.exists(partial):
            os.remove(partial)
