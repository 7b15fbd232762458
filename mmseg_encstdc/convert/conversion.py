"""Steps of every conversion: read, rename, compare with a model."""
from typing import Callable, Dict, List, NamedTuple, Optional

import torch
from torch import Tensor, nn

from ..engine.checkpoints import listed, read_checkpoint
from ..errors import InputError

__all__ = ['Conversion', 'State', 'fit', 'read_authors', 'rename']

State = Dict[str, Tensor]


class Conversion(NamedTuple):
    """Hold a converted state dict.

    Args:
        state: key -> tensor, for the whole model or a backbone.
        left_out: keys of the source that the target does not have.
        part: name of the module that ``state`` is for, for the report.
    """
    state: State
    left_out: List[str]
    part: str


def read_authors(path: str) -> State:
    """Read the authors' state dict, and strip ``module.`` from its keys.

    Raises:
        InputError: when the file cannot be read, is a checkpoint of MMEngine,
            converted or not, or holds no state dict.
    """
    content = read_checkpoint(path, remedy='give a file', bare=True)
    if isinstance(content['meta'], dict):
        source = content['meta'].get('converted_from')
        done = (f'was converted from {source} already' if source else
                "is a checkpoint of MMEngine, not the authors'")
        raise InputError(
            f'checkpoint {path} {done}; use it as it is with the config it was '
            "made for, or convert the authors' file for another")
    return {key[len('module.'):] if key.startswith('module.') else key: value
            for key, value in content['state_dict'].items()}


def rename(state: State, name_of: Callable[[str], Optional[str]],
           path: str) -> Conversion:
    """Rename the entries of a state dict, and leave some out.

    Args:
        state: to rename.
        name_of: returns the new key; None to leave the entry out.
        path: file of the checkpoint, for messages.

    Raises:
        InputError: listing the keys for which ``name_of`` raises KeyError.
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
        raise InputError(
            f'checkpoint {path} has keys that are not known: {listed(unknown)}')
    return Conversion(renamed, left_out, '')


def fit(found: Conversion, model: nn.Module, part: str,
        path: str) -> Conversion:
    """Check that a converted state dict has exactly the keys of a module.

    ``num_batches_tracked``, which old versions of PyTorch did not have, becomes 0
    where it is missing.

    Returns:
        the conversion in the order and types of the module's state dict.

    Raises:
        InputError: listing the keys that are missing, left over or of another
            shape.
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
        raise InputError(
            f'checkpoint {path} does not fit {part} of the config: ' + '; '.join(
                f'{what}: {listed(sorted(keys))}' for what, keys in faults))
    ordered = {key: state[key].to(value.dtype) for key, value in wanted.items()}
    return Conversion(ordered, found.left_out, part)
