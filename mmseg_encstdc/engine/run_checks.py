"""Check a config and its data before the runner is built."""
import os.path as osp
from itertools import zip_longest
from typing import Callable, Iterator, List, Tuple

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmseg.registry import DATASETS, MODELS

from ..compat.data import build_without_pipeline
from ..datasets.image_checks import image_size_reader
from ..datasets.sample_checks import check_folders, check_pair, check_pairs_exist
from ..datasets.transforms import LoadSegAnnotations
from ..errors import InputError
from .channel_checks import check_channels
from .checkpoints import read_checkpoint
from .configs import classes_of, datasets_of

__all__ = ['check_config', 'check_data']

# Auxiliary heads whose channels are not the data set's classes.
EDGE_HEADS = ('DetailHead', 'STDCHead')
# Images decoded with their labels, spread evenly over a data set; a disk reads them
# in a few seconds.
SAMPLE = 500


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
    for loader in loaders:
        for dataset in datasets_of(cfg[loader].dataset):
            _check_registered(dataset, loader)
            _check_classes(cfg.model, dataset['type'], classes_of(dataset), loader)
            _check_root(dataset)
    check_channels(cfg, loaders)
    if training:
        _check_batch(cfg, world_size)
        _check_weights(cfg.model, 'model')


def check_data(cfg: Config, loaders: List[str], world_size: int = 1) -> None:
    """Look for missing files, and decode up to 500 images of each data set.

    Classes that follow from the folders of a data set are known here only, so they
    are compared with the model and between data sets, as ids follow their order.

    Args:
        cfg: a whole experiment.
        loaders: keys of the data loaders that will be used.
        world_size: number of processes.

    Raises:
        InputError: naming the file or key at fault, or a batch size above the
            number of images.
    """
    found = []
    for loader in loaders:
        total = 0
        for config in datasets_of(cfg[loader].dataset):
            dataset = build_without_pipeline(config)
            total += _check_files(dataset, image_size_reader(config.get('pipeline')))
            classes = dataset.metainfo.get('classes')
            if classes and not classes_of(config):
                _check_classes(cfg.model, config['type'], classes, loader)
                found.append((loader, classes))
                _check_same(*found[0], loader, classes)
        _check_epoch(cfg[loader], loader, total // world_size)


def _check_files(dataset: BaseDataset, read_size: Callable) -> int:
    """Check that all files exist, decode some, and return the number of images.

    ``read_size`` decodes an image.
    """
    count = check_pairs_exist(
        type(dataset).__name__,
        (dataset.get_data_info(i) for i in range(len(dataset))))
    classes = dataset.metainfo.get('classes')
    load = LoadSegAnnotations(len(classes) if classes else None)
    for i in range(0, count, -(-count // SAMPLE)):
        sample = dataset.get_data_info(i)
        if sample.get('seg_map_path'):
            check_pair(sample, read_size)
            load(sample)
        else:
            read_size(sample['img_path'])
    return count


def _check_same(first: str, expected: tuple, loader: str,
                classes: tuple) -> None:
    """Raise InputError unless two loaders have the same classes in one order."""
    for i, (one, other) in enumerate(zip_longest(expected, classes)):
        if one != other:
            raise InputError(
                f'class {i} is {one} in {first} and {other} in {loader}; give '
                'both the same class folders, or the same metainfo.classes')


def _check_epoch(loader: dict, name: str, images: int) -> None:
    """Raise InputError if an epoch without its incomplete batch would be empty."""
    endless = loader.get('sampler', {}).get('type') == 'InfiniteSampler'
    batch = loader.get('batch_size', 1)
    if loader.get('drop_last') and not endless and images < batch:
        raise InputError(
            f'{name}.batch_size is {batch}, but each process has {images} '
            'images, and an incomplete batch is dropped; lower batch_size')


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


def _heads(model: dict) -> Iterator[Tuple[str, dict]]:
    """Yield key and config of each part that may have ``num_classes``."""
    yield 'model', model  # a classifier
    yield 'model.decode_head', model.get('decode_head', {})
    auxiliary = model.get('auxiliary_head') or []
    if isinstance(auxiliary, dict):
        yield 'model.auxiliary_head', auxiliary
    else:
        for i, head in enumerate(auxiliary):
            yield f'model.auxiliary_head[{i}]', head


def _check_registered(dataset: dict, loader: str) -> None:
    if DATASETS.get(dataset['type']) is None:
        raise InputError(f'{loader}.dataset.type {dataset["type"]} is not '
                         'registered; is its custom_imports line there?')


def _check_classes(model: dict, dataset: str, names: tuple,
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
    for key, head in _heads(model):
        if head.get('type') in EDGE_HEADS or 'num_classes' not in head:
            continue
        if head['num_classes'] != classes:
            raise InputError(
                f'{key}.num_classes is {head["num_classes"]}, but '
                f'{dataset} ({loader}) has {classes} classes; set it '
                f'to {classes}')


def _check_root(dataset: dict) -> None:
    """Check that the folders and files of a data set's config exist."""
    prefixes = (dataset.get('data_prefix') or {}).values()
    root = dataset.get('data_root')
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
