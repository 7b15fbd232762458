"""A network with its weights, from one file."""
import copy
import os
from typing import Optional, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from ..compat import quiet
from ..engine.checkpoints import check_fits, read_checkpoint
from ..engine.configs import CONFIG_ERRORS, datasets_of, load_config, metainfo_of
from ..errors import InputError, as_input_error
from .embedded_config import embedded_config

__all__ = ['load']

CONFIG_SUFFIXES = ('.py', '.json', '.yaml', '.yml')


def load(checkpoint: Union[str, os.PathLike, None] = None,
         config: Union[str, os.PathLike, Config, None] = None,
         device: Optional[str] = None,
         weights: bool = True) -> nn.Module:
    """A segmentation network, ready to predict.

    A checkpoint of training holds its config, so its path is enough. Neither
    runs code from the checkpoint: weights are tensors, the config plain values
    whose types are registered. A module of your own that was in
    ``custom_imports`` has to be imported before. Checkpoints of tools/convert
    and of MMSegmentation's older versions need ``config``.

    Args:
        checkpoint (path, optional): of MMEngine.
        config (path or Config, optional): instead of the checkpoint's own.
        device (str, optional): such as 'cpu' or 'cuda:1'. Default: the first
            GPU where there is one.
        weights (bool): False takes a config without a checkpoint and leaves the
            random weights of PyTorch. Default: True.

    Returns:
        nn.Module: MMSegmentation's segmentor in evaluation mode, with ``cfg``
        and ``dataset_meta`` (classes and palette).

    Raises:
        InputError: naming the file or device at fault, in one line, for a
            file that is missing, truncated or no checkpoint, a checkpoint of
            another network, a config that does not build a segmentor, or no
            weights where they are wanted.
    """
    checkpoint = None if checkpoint is None else os.fspath(checkpoint)
    _check_arguments(checkpoint, config, weights)
    content = read_checkpoint(checkpoint) if checkpoint else None
    cfg, origin = _config(config, content, checkpoint)
    device = _device(device)
    model = _build(cfg, origin)
    if content is not None:
        check_fits(model, checkpoint, content['state_dict'])
        _fill(model, content['state_dict'])
    model.cfg = cfg
    model.dataset_meta = _dataset_meta(cfg, content, origin)
    return model.to(device).eval()


def _check_arguments(checkpoint: Optional[str], config, weights: bool) -> None:
    """Say what is missing: weights, or a config to do without them."""
    if not weights:
        if config is None or checkpoint:
            raise InputError('weights=False is for a config alone: '
                             "load(config='configs/NAME.py', weights=False)")
        return
    name = checkpoint
    if checkpoint is None:
        name = config if isinstance(config, (str, os.PathLike)) else 'CONFIG'
    elif not checkpoint.lower().endswith(CONFIG_SUFFIXES):
        return
    raise InputError(
        f'no checkpoint is given, {name} has no weights; call '
        f"load('CHECKPOINT.pth', config='{name}'), or "
        f"load(config='{name}', weights=False) for random weights")


def _config(config, content: Optional[dict], checkpoint: Optional[str]) -> tuple:
    """A config of one's own, and where it is from, for messages."""
    if config is None:
        cfg, origin = embedded_config(content, checkpoint), f'in {checkpoint}'
    elif isinstance(config, Config):
        cfg, origin = copy.deepcopy(config), str(config.filename or 'given')
    elif isinstance(config, (str, os.PathLike)):
        cfg, origin = load_config(os.fspath(config)), os.fspath(config)
    else:
        raise InputError('config must be a path or a Config of MMEngine, got '
                         f'{type(config).__name__}')
    if 'decode_head' not in (cfg.get('model') or {}):
        raise InputError(f'config {origin} has no model.decode_head, so it is '
                         'no segmentation network; score a classifier with '
                         'tools/test.py')
    return cfg, origin


def _device(device: Optional[str]) -> str:
    """The device, which works."""
    if device is None:
        device = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    with as_input_error(f'device {device}', (RuntimeError, AssertionError)):
        torch.zeros(1, device=device)
    return device


def _build(cfg: Config, origin: str) -> nn.Module:
    """The network, without downloading anything."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = copy.deepcopy(cfg.model)
    model['train_cfg'] = None
    if model.get('pretrained'):
        model['pretrained'] = None
    with as_input_error(f'config {origin}', CONFIG_ERRORS), quiet():
        return MODELS.build(model)


def _fill(model: nn.Module, state: dict) -> None:
    """Load what fits; only auxiliary heads may differ at this point."""
    wanted = model.state_dict()
    model.load_state_dict(
        {key: value for key, value in state.items()
         if key in wanted and wanted[key].shape == value.shape}, strict=False)


def _dataset_meta(cfg: Config, content: Optional[dict], origin: str) -> dict:
    """Classes and palette of the checkpoint, or of the config's test set."""
    meta = (content or {}).get('meta', {})
    found = meta.get('dataset_meta') or {}
    if not isinstance(found, dict) or not isinstance(
            found.get('classes', ()), (list, tuple)):
        raise InputError(f'checkpoint of config {origin} has a dataset_meta '
                         'without a list of classes')
    found = dict(found)
    if not found and 'CLASSES' in meta:  # of MMSegmentation 0.x
        found = dict(classes=meta['CLASSES'], palette=meta.get('PALETTE'))
    if not found:
        with as_input_error(f'config {origin}', CONFIG_ERRORS):
            found = metainfo_of(next(datasets_of(cfg.test_dataloader.dataset)))
    if found.get('classes') and not found.get('palette'):
        colours = np.random.RandomState(42).randint(  # as MMSegmentation's sets
            0, 255, (len(found['classes']), 3))
        found['palette'] = colours.tolist()
    return found
