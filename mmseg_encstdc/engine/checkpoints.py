"""Read a checkpoint without executing code, and compare a model with it."""
import os.path as osp
from typing import Dict, Iterable, List, Optional, Tuple

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = [
    'check_fits', 'fitting', 'listed', 'not_finite', 'read_checkpoint', 'read_file'
]

SHOWN = 8  # names that an error lists


def read_checkpoint(path: str, what: str = 'checkpoint',
                    remedy: str = 'training writes it to the work dir',
                    bare: bool = False) -> dict:
    """Read the weights of a checkpoint; no pickled code is executed.

    Args:
        path: the file.
        what: description of the file in messages, such as its config key.
        remedy: what the message of a missing file advises.
        bare: also accept a file without ``meta``, or a state dict alone.

    Returns:
        a dictionary with ``state_dict``, name -> tensor on the CPU, and
        ``meta``, a dictionary; with ``bare``, any value or None.

    Raises:
        InputError: when the file does not exist, is truncated, is not a
            checkpoint, or has content that ``torch.load`` refuses with
            weights_only.
    """
    content = read_file(path, what, remedy)
    if bare:
        return _state_and_meta(content, f'{what} {path}')
    if not isinstance(content, dict) or not all(
            isinstance(content.get(k), dict) for k in ('state_dict', 'meta')):
        raise InputError(f'{what} {path} is no checkpoint of MMEngine: it needs '
                         'the dictionaries state_dict and meta')
    for name, value in content['state_dict'].items():
        if not _is_plain(name, value):
            raise InputError(f'{what} {path} has {name!r} in its state_dict, '
                             'which is no plain tensor')
    return content


def read_file(path: str, what: str, remedy: str) -> object:
    """Read a file of torch.save; see :func:`read_checkpoint`."""
    if not osp.isfile(path):
        state = 'is a folder' if osp.isdir(path) else 'does not exist'
        raise InputError(f'{what} {path} {state}; {remedy}')
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        # PyTorch's message advises weights_only=False, which executes the file.
        raise InputError(
            f'{what} {path} cannot be read: it is truncated, or no file of '
            'torch.save that holds tensors and plain values alone '
            f'({type(error).__name__})') from error


def _state_and_meta(content: object, file: str) -> dict:
    """Return state dict and meta of a file that may be a state dict alone."""
    if not isinstance(content, dict):
        raise InputError(
            f'{file} holds a {type(content).__name__}; it must be a state dict, '
            'or a dictionary with one as state_dict')
    state = content.get('state_dict', content)
    if not isinstance(state, dict) or not state or not all(
            _is_plain(name, value) for name, value in state.items()):
        raise InputError(f'{file} holds no state dict; its entries are '
                         f'{listed(map(str, content))}')
    return dict(state_dict=state, meta=content.get('meta'))


def _is_plain(name: object, value: object) -> bool:
    """Return whether this is a str and a dense tensor that is not quantized."""
    return (isinstance(name, str) and isinstance(value, Tensor)
            and value.layout == torch.strided and not value.is_quantized
            and value.device.type == 'cpu')


def listed(names: Iterable[str]) -> str:
    """Join the first eight names, and count the others."""
    names = list(names)
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more


def check_fits(model: nn.Module, path: str,
               state: Optional[dict] = None) -> None:
    """Compare the weights of a model with a checkpoint; MMEngine only warns.

    Auxiliary heads may differ, because evaluation does not run them. A deep
    backbone has all weights of a shallower one, so extra weights of a backbone
    are an error.

    Args:
        model: to compare.
        path: of the checkpoint.
        state: its weights, if they are read already.

    Raises:
        InputError: naming the first weight that is missing, left over in the
            backbone, of another shape, or not finite.
    """
    while hasattr(model, 'module'):  # test-time augmentation, distribution
        model = model.module
    if state is None:
        state = read_checkpoint(path)['state_dict']
    wanted = model.state_dict()
    differing = [key for key in state
             if key.startswith('backbone.') and key not in wanted]
    differing += [
        key for key, value in wanted.items()
        if not key.startswith('auxiliary_head')
        and not key.endswith('num_batches_tracked') and
        (key not in state or state[key].shape != value.shape)
    ]
    if differing:
        raise InputError(
            f'checkpoint {path} does not fit the config: {len(differing)} weights '
            'are missing, left over or of another shape, the first is '
            f'{differing[0]}; give the config that it was trained with')
    name = not_finite(model, state)
    if name:
        raise InputError(f'checkpoint {path} holds NaN or infinity in {name}: its '
                         'training has diverged; give an earlier one')


def not_finite(model: nn.Module, state: Optional[dict] = None) -> Optional[str]:
    """Return the name of the first weight that is not finite; None if there is none.

    A buffer may hold infinity, such as that of a mask, but not NaN.

    Args:
        model: whose weights count.
        state: values of the weights; default: the model's own.
    """
    state = model.state_dict() if state is None else state
    parameters = {name for name, _ in model.named_parameters()}
    names = [name for name in model.state_dict()
             if name in state and state[name].is_floating_point()]
    if names:
        norms = torch.stack(torch._foreach_norm([state[n].detach() for n in names]))
        for name, norm in zip(names, norms.isfinite().tolist()):
            if not norm:  # or the sum of finite squares is too large
                value = state[name]
                if value.isnan().any() or name in parameters and value.isinf().any():
                    return name
    return None


def fitting(model: nn.Module, state: Dict[str, Tensor],
            path: str) -> Tuple[Dict[str, Tensor], str]:
    """Select the weights of a state dict with which a training may start.

    Args:
        model: to train.
        state: weights of another training, without the prefix ``module.``.
        path: of their file, for messages.

    Returns:
        The weights that the model has, in the same shape, and a line that counts them
        and names the parts of the model and of the file that are left out.

    Raises:
        InputError: when there are none.
    """
    wanted = model.state_dict()
    fits = {key: value for key, value in state.items()
            if key in wanted and wanted[key].shape == value.shape}
    weights = [key for key in wanted if not key.endswith('num_batches_tracked')]
    count = sum(key in fits for key in weights)
    if not count:
        raise InputError(
            f'load_from {path} has none of the {len(weights)} weights of the model, '
            f'such as {weights[0]}; its own begin with {listed(list(state)[:2])}; for '
            "a backbone's file write model.backbone.init_cfg=dict(_delete_=True, "
            f"type='Pretrained', checkpoint='{path}') into your config, the authors' "
            'convert with tools/convert')
    line = f'{count} of {len(weights)} weights of the model are loaded from {path}'
    for text, keys in (('; not in it: ', wanted), ('; not of the model: ', state)):
        parts = _parts(keys, fits)
        if parts:
            line += text + listed(parts)
    return fits, line


def _parts(keys: Iterable[str], fits: Iterable[str]) -> List[str]:
    """Return the largest modules, or weights, that hold none of ``fits``."""
    used = {key.rsplit('.', n)[0] for key in fits for n in range(key.count('.') + 1)}
    found = {}
    for key in keys:
        names = key.split('.')
        prefixes = ['.'.join(names[:n + 1]) for n in range(len(names))]
        if key not in used and not key.endswith('num_batches_tracked'):
            found[next(p for p in prefixes if p not in used)] = None
    return list(found)
