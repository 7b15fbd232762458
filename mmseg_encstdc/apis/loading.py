"""Load a network and its weights from one file."""
import copy
import os
from typing import Any, Optional, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from ..compat import quiet
from ..engine.checkpoints import check_fits, read_checkpoint
from ..engine.checks.image_channels import check_image_channels
from ..engine.configs import CONFIG_ERRORS, datasets_of, load_config, metainfo_of
from ..errors import InputError, as_input_error
from .embedded_config import embedded_config

__all__ = ['load']

CONFIG_SUFFIXES = ('.py', '.json', '.yaml', '.yml')


def load(checkpoint: Union[str, os.PathLike, None] = None,
         config: Union[str, os.PathLike, Config, None] = None,
         device: Optional[str] = None,
         weights: bool = True) -> nn.Module:
    """Build a segmentation network and load its weights, ready to predict.

    A checkpoint that training wrote holds its config, so its path is enough.
    Checkpoints of tools/convert and of MMSegmentation 0.x need ``config``.

    No code of the checkpoint is executed: weights are read as tensors, and its
    config may hold only plain values and registered types. Import the modules
    of its ``custom_imports`` before.

    Args:
        checkpoint: file in MMEngine's format.
        config: file or Config to use instead of the checkpoint's own.
        device: such as 'cpu' or 'cuda:1'; default: the first GPU if there is
            one, else the CPU.
        weights: False takes ``config`` alone and keeps the random
            initialisation.

    Returns:
        MMSegmentation's segmentor in evaluation mode, with the attributes
        ``cfg`` and ``dataset_meta`` (classes and palette).

    Raises:
        InputError: naming the file or device at fault, when a file is missing,
            truncated or not a checkpoint, belongs to another network, or builds
            no segmentor, when the config gives the network images of other channels,
            and when there are no weights although ``weights``.
    """
    checkpoint = None if checkpoint is None else os.fspath(checkpoint)
    _check_arguments(checkpoint, config, weights)
    content = read_checkpoint(checkpoint) if checkpoint else {}
    cfg, origin = _config(config, content, checkpoint)
    device = _device(device)
    model = _build(cfg, origin)
    if content:
        state = content['state_dict']
        check_fits(model, checkpoint, state)
        # After this check only auxiliary heads and counters of batches may differ.
        wanted = model.state_dict()
        model.load_state_dict(
            {key: value for key, value in state.items()
             if key in wanted and wanted[key].shape == value.shape}, strict=False)
    model.cfg = cfg
    model.dataset_meta = _dataset_meta(cfg, content.get('meta', {}), origin)
    return model.to(device).eval()


def _check_arguments(checkpoint: Optional[str], config: Any,
                     weights: bool) -> None:
    """Raise InputError unless there is a checkpoint, or ``weights`` is False."""
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


def _config(config: Any, content: dict,
            checkpoint: Optional[str]) -> Tuple[Config, str]:
    """Return the config as a copy, and its origin for messages."""
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
    """Choose a device, and raise InputError unless it works."""
    if device is None:
        device = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    with as_input_error(f'device {device}', (RuntimeError, AssertionError)):
        torch.zeros(1, device=device)
    return device


def _build(cfg: Config, origin: str) -> nn.Module:
    """Build the network without downloading pretrained weights."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    check_image_channels(cfg, [name for name in ('test_dataloader', ) if cfg.get(name)])
    model = copy.deepcopy(cfg.model)
    model['train_cfg'] = None
    if model.get('pretrained'):
        model['pretrained'] = None
    with as_input_error(f'config {origin}', CONFIG_ERRORS), quiet():
        return MODELS.build(model)


def _dataset_meta(cfg: Config, meta: dict, origin: str) -> dict:
    """Return classes and palette of a checkpoint's meta, or of the test set."""
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
        # The seed gives the colours that MMSegmentation gives such a data set.
        found['palette'] = np.random.RandomState(42).randint(
            0, 255, (len(found['classes']), 3)).tolist()
    return found
