"""Check that the parts of a config fit each other, before the runner is built."""
import os.path as osp
from typing import List

from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS

from ...datasets.sample_checks import check_folders, is_local
from ...errors import InputError
from ..checkpoints import read_checkpoint
from ..config_errors import naming
from ..configs import classes_of, datasets_of
from .agreement import check_agreement
from .classes import check_strictness
from .head_configs import class_heads_of
from .image_channels import check_image_channels
from .one_channel import check_channels, check_several_classes, has_one_channel

__all__ = ['check_class_count', 'check_config']


def check_config(cfg: Config, loaders: List[str], world_size: int = 1,
                 training: bool = False) -> None:
    """Check that the parts of a config fit each other, and that its folders exist.

    Args:
        cfg: a whole experiment.
        loaders: keys of the data loaders that will be used.
        world_size: number of processes.
        training: also check what only training needs.

    Raises:
        InputError: naming the key at fault and what is accepted.
    """
    check_strictness(cfg)
    with naming(cfg, 'config'):  # of a value of another type
        for key, head in class_heads_of(cfg.model):
            check_channels(key, head)
    for loader in loaders:
        for dataset in datasets_of(cfg[loader].dataset):
            _check_registered(dataset, loader)
            check_class_count(cfg.model, dataset['type'], classes_of(dataset), loader)
            _check_root(dataset)
    with naming(cfg, 'config'):
        check_agreement(cfg, loaders, training)
    check_image_channels(cfg, loaders)
    if training:
        _check_batch(cfg, world_size)
        _check_weights(cfg.model, 'model')


def _check_weights(part: dict, key: str) -> None:
    """Check the file of each ``init_cfg`` at any depth of a model config."""
    for name, value in part.items():
        if name == 'init_cfg':
            for init in value if isinstance(value, list) else [value or {}]:
                path = init.get('checkpoint') or ''
                if init.get('type') == 'Pretrained' and '://' not in path:
                    _check_start(part, init, f'{key}.init_cfg')
        elif isinstance(value, dict):
            _check_weights(value, f'{key}.{name}')


def _check_start(part: dict, init: dict, key: str) -> None:
    """Raise InputError unless a file has weights of the module; MMEngine only warns.

    Args:
        part: config of the module.
        init: its ``init_cfg``, of type Pretrained.
        key: of ``init`` in the config, for messages.
    """
    path = str(init.get('checkpoint'))
    state = read_checkpoint(
        path, f'{key}.checkpoint', "tools/convert makes it from the authors' "
        f'checkpoint, or start without: --cfg-options {key}=None',
        bare=True)['state_dict']
    prefix = init.get('prefix', '')
    prefix += '.' if prefix and not prefix.endswith('.') else ''
    found = {k[len(prefix):] for k in state if k.startswith(prefix)}
    module = MODELS.build({**part, 'init_cfg': None})
    if not found & module.state_dict().keys():
        raise InputError(
            f'{key}.checkpoint {path} has none of the weights of {part["type"]}; '
            "convert the authors' file with tools/convert, and for a whole "
            f"network's set {key}.prefix to where it has its backbone, such as "
            'backbone.')


def _check_registered(dataset: dict, loader: str) -> None:
    if DATASETS.get(dataset['type']) is None:
        raise InputError(f'{loader}.dataset.type {dataset["type"]} is not '
                         'registered; is its custom_imports line there?')


def check_class_count(model: dict, dataset: str, names: tuple,
                      loader: str) -> None:
    """Raise InputError unless the heads have a channel for each class.

    Args:
        model: config of the model.
        dataset: type of the data set, for messages.
        names: its classes.
        loader: key of its data loader, for messages.
    """
    classes = len(names)
    if not classes:
        return
    heads = class_heads_of(model)
    if heads:
        check_several_classes(dataset, names, loader)
    elif 'num_classes' in model:
        heads = [('model', model)]  # a classifier
    for key, head in heads:
        binary = has_one_channel(head) and classes == 2
        if head['num_classes'] != classes and not binary:
            raise InputError(
                f'{key}.num_classes is {head["num_classes"]}, but '
                f'{dataset} ({loader}) has {classes} classes; set it '
                f'to {classes}')


def _check_root(dataset: dict) -> None:
    """Check that the folders and files of a data set's config exist."""
    prefixes = (dataset.get('data_prefix') or {}).values()
    root = dataset.get('data_root')
    if not is_local(root, dataset.get('backend_args')):
        return
    check_folders(
        dataset['type'],
        [root] + [osp.join(root or '', path) if path else path
                  for path in (*prefixes, dataset.get('ann_file'))])


def _check_batch(cfg: Config, world_size: int) -> None:
    """Raise InputError if batch norm would see one value for each channel.

    STDC's global context is a 1 x 1 map, so it needs two images.
    """
    backbone = cfg.model.get('backbone', {})
    norm = (backbone.get('norm_cfg') or {}).get('type', 'BN')
    synced = norm == 'SyncBN' and world_size > 1 and not cfg.get(
        'model_wrapper_cfg', {}).get('type', '').startswith('CPU')
    if (backbone.get('type') == 'STDCContextPathNet'
            and cfg.train_dataloader.batch_size == 1 and not synced):
        raise InputError(
            'train_dataloader.batch_size is 1, at which STDC cannot train: '
            'batch norm on its 1 x 1 context maps needs 2 images or more in '
            'each process')
