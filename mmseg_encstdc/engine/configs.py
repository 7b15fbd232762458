"""Read a config, build its runner, and look up its data sets."""
import os.path as osp
from typing import Iterator, List, Optional, Tuple

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import DATASETS

from ..compat.data import metainfo_without_files
from ..compat.trial import forget_training
from ..errors import InputError, as_input_error
from ..evaluation.label_ids import raw_ids
from .heartbeat import watch_ranks
from .training_runner import TrainingRunner

__all__ = [
    'CONFIG_ERRORS', 'bind_classes', 'build_runner', 'classes_of',
    'datasets_of', 'load_config', 'metainfo_of', 'raw_ids_of', 'transforms_of',
    'use_mode'
]

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# Exceptions that an invalid value in a config raises, here or in a library.
CONFIG_ERRORS = (AssertionError, AttributeError, ImportError, IndexError,
                 KeyError, OSError, SyntaxError, TypeError, ValueError)


def load_config(path: str, options: Optional[dict] = None,
                loader: Optional[str] = 'test_dataloader') -> Config:
    """Read a config file and merge overrides into it.

    Args:
        path: of the file.
        options: overrides by key, with dots.
        loader: key of the data loader that is needed; None for any.

    Raises:
        InputError: when the file does not exist, cannot be read, or has no model
            or loader, and when an override does not apply.
    """
    if not osp.isfile(path):
        raise InputError(f'config {path} does not exist; those of this '
                         'project are in configs/')
    with as_input_error(f'config {path}', CONFIG_ERRORS):
        config = Config.fromfile(path)
    with as_input_error('--cfg-options', CONFIG_ERRORS):
        config.merge_from_dict(options or {})
    found = [key for key in LOADERS if isinstance(config.get(key), dict)]
    for part, there in (('model', isinstance(config.get('model'), dict)),
                        (loader or 'data loader', found)):
        if not there:
            raise InputError(f'config {path} has no {part}; give a whole '
                             'experiment, not one of its bases')
    if loader and loader not in found:
        raise InputError(f'config {path} has {" and ".join(found)}, but no {loader}; '
                         'add it, its pipeline says how images are read')
    return config


def build_runner(cfg: Config, training: bool = True) -> Runner:
    """Build MMEngine's runner of a config.

    Args:
        cfg: a whole experiment.
        training: False for a runner that evaluates, which needs no training set.

    Raises:
        InputError: when a part of the config cannot be built.
    """
    with as_input_error(f'config of {cfg.work_dir}', CONFIG_ERRORS):
        runner = (TrainingRunner if training else Runner).from_cfg(cfg)
    watch_ranks()  # on GPUs, the runner has started the processes
    if not training:
        forget_training(runner)
    return runner


def use_mode(cfg: Config, mode: str) -> None:
    """Set ``test_cfg``, and the pipeline, to those of one of ``test_modes``.

    Raises:
        InputError: when the config has no such mode, listing those it has.
    """
    modes = cfg.get('test_modes', {})
    if mode not in modes:
        raise InputError(f'--mode {mode} is not in test_modes of the config, '
                         f'which has {", ".join(sorted(modes)) or "none"}')
    chosen = modes[mode]
    scale = cfg.model.test_cfg.get('scale')
    cfg.model.test_cfg = chosen['test_cfg']
    if scale is not None and chosen['test_cfg']['mode'] != 'chip':
        cfg.model.test_cfg.scale = scale
    if 'pipeline' in chosen:
        cfg.test_dataloader.dataset.pipeline = chosen['pipeline']


def datasets_of(config: dict) -> Iterator[dict]:
    """Yield the configs of the data sets inside wrappers such as RepeatDataset."""
    if 'datasets' in config:
        for child in config['datasets']:
            yield from datasets_of(child)
    elif isinstance(config.get('dataset'), dict):
        yield from datasets_of(config['dataset'])
    else:
        yield config


def metainfo_of(dataset: dict) -> dict:
    """Merge the METAINFO of a data set's class and its config's metainfo."""
    meta = getattr(DATASETS.get(dataset['type']), 'METAINFO', {})
    return {**meta, **(dataset.get('metainfo') or {})}


def classes_of(dataset: dict) -> tuple:
    """Return the class names of a data set's config; empty when it has none."""
    classes = metainfo_of(dataset).get('classes', ())
    return () if isinstance(classes, str) else classes  # a file, read later


def transforms_of(part: object, key: str) -> Iterator[Tuple[str, dict]]:
    """Yield key and config of each transform, at any depth of a data set's config."""
    if isinstance(part, (list, tuple)):
        for i, item in enumerate(part):
            yield from transforms_of(item, f'{key}[{i}]')
    elif isinstance(part, dict):
        yield key, part
        for name in ('dataset', 'datasets', 'pipeline', 'transforms'):
            if name in part:
                yield from transforms_of(part[name], f'{key}.{name}')


def raw_ids_of(cfg: Config) -> np.ndarray:
    """Return the id in the test set's label files of each class, (C, ) uint8.

    Raises:
        InputError: when the data set cannot be built, or a class has several such ids
            or none.
    """
    dataset = next(datasets_of(cfg.test_dataloader.dataset))
    values = next((transform['values'] for _, transform in transforms_of(dataset, '')
                   if transform.get('values') is not None), None)
    with as_input_error('test_dataloader.dataset', CONFIG_ERRORS):
        return raw_ids(metainfo_without_files(dataset), values)


def bind_classes(cfg: Config, loaders: List[str]) -> None:
    """Set ``num_classes`` of every LoadSegAnnotations from its data set.

    The transform then checks each label map that it loads.
    """
    for loader in loaders:
        for dataset in datasets_of(cfg[loader].dataset):
            classes = classes_of(dataset)
            for transform in dataset.get('pipeline', []):
                if classes and transform['type'] == 'LoadSegAnnotations':
                    transform.setdefault('num_classes', len(classes))
