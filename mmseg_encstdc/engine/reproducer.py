"""Write a training step to a file, and repeat it."""
import os
from typing import Dict, List, Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..errors import InputError, as_input_error
from .checkpoints import read_file

__all__ = ['BAD_LOSS', 'random_state', 'replay', 'write_step']

BAD_LOSS = 'bad_loss_'  # beginning of the file's name
KEYS = ('batch', 'state_dict', 'random', 'iteration')
ELEMENT, ARRAY = '__element__', '__array__'  # keys of what is no plain value


def random_state() -> Dict[str, Tensor]:
    """Return the states of PyTorch's generators on the CPU and the current GPU."""
    state = dict(cpu=torch.get_rng_state())
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def write_step(path: str, **content) -> None:
    """Write tensors and plain values, which ``torch.load`` reads with weights_only.

    Args:
        path: of the file, which is whole or not there.
        content: what :func:`replay` reads.
    """
    torch.save(_plain(content), f'{path}.new')
    os.replace(f'{path}.new', path)


def replay(cfg: Config, path: str) -> List[str]:
    """Repeat a training step that :func:`write_step` has written.

    Args:
        cfg: of the training.
        path: of the file.

    Returns:
        Lines: each loss, and the first module or gradient that is not finite.

    Raises:
        InputError: when the file cannot be read, or does not fit the config.
    """
    content = read_file(path, '--replay', 'a training writes it at a bad loss')
    if not isinstance(content, dict) or any(key not in content for key in KEYS):
        raise InputError(f'--replay {path} is no step of a training; give a file '
                         'bad_loss_iter_N.pth of a work dir')
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    with as_input_error(f'--replay {path} does not fit the config',
                        (RuntimeError, KeyError, TypeError)):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        model.load_state_dict(content['state_dict'])
    model.to(device).train()
    torch.set_rng_state(content['random']['cpu'])
    if 'cuda' in content['random'] and device == 'cuda':
        torch.cuda.set_rng_state(content['random']['cuda'])
    found = _note_first(model)
    wrapper = (cfg.get('optim_wrapper') or {}).get('type')
    amp = dict(cuda=('AmpOptimWrapper', torch.float16),
               cpu=('BFloat16OptimWrapper', torch.bfloat16))[device]
    with torch.autocast(device, amp[1], enabled=wrapper == amp[0]):
        data = model.data_preprocessor(_restored(content['batch']), True)
        losses = model(**data, mode='loss')
    total, parts = model.parse_losses(losses)
    total.backward()
    lines = [f'{name}: {float(value.float().mean())}' for name, value in parts.items()]
    gradients = ((n, p.grad) for n, p in model.named_parameters() if p.grad is not None)
    bad = next((name for name, g in gradients if not torch.isfinite(g).all()), None)
    return [f'iteration {content["iteration"]}', *lines, _verdict(found, bad)]


def _verdict(found: List[str], gradient: Optional[str]) -> str:
    """Return the line on what is not finite."""
    if found:
        return f'the first module whose output is not finite is {found[0]}'
    if gradient:
        return ('the outputs of all modules are finite; the first gradient that is not '
                f'is that of {gradient}')
    return 'the outputs of all modules and all gradients are finite'


def _note_first(model: nn.Module) -> List[str]:
    """Return a list that gets the names of modules whose output is not finite."""
    found = []

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            if not all(torch.isfinite(t).all() for t in _tensors(output)):
                found.append(name)
        return hook

    for name, module in model.named_modules():
        if name and name != 'data_preprocessor':
            module.register_forward_hook(note(name))
    return found


def _tensors(value: object) -> List[Tensor]:
    """Return the floating-point tensors in a value."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = list(value.values())
    return [t for item in value for t in _tensors(item)] if isinstance(
        value, (list, tuple)) else []


def _plain(value: object) -> object:
    """Return a value as tensors, dicts, lists and plain values."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, BaseDataElement):
        return {ELEMENT: type(value).__name__, 'data': _plain(dict(value.items())),
                'metainfo': _plain(value.metainfo)}
    if isinstance(value, np.ndarray):
        return {ARRAY: value.tolist()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value] if isinstance(
            value, list) else tuple(_plain(item) for item in value)
    return value if value is None or isinstance(
        value, (bool, int, float, str)) else str(value)


def _restored(value: object) -> object:
    """Undo :func:`_plain`."""
    if isinstance(value, dict) and ELEMENT in value:
        return _element_type(value[ELEMENT])(
            metainfo=_restored(value['metainfo']), **_restored(value['data']))
    if isinstance(value, dict):
        return np.array(value[ARRAY]) if ARRAY in value else {
            key: _restored(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_restored(item) for item in value)
    return value


def _element_type(name: str) -> type:
    """Return the class of MMEngine's data elements of a name."""
    kinds = [BaseDataElement]
    while kinds:
        kind = kinds.pop()
        if kind.__name__ == name:
            return kind
        kinds += kind.__subclasses__()
    raise InputError(f'the step has a {name}, which no data element of the config is')
