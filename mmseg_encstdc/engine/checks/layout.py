"""Check that a config has the keys that a run reads, and of the right type."""
import difflib
from typing import Iterable, Sequence, Tuple, Union

from mmengine.config import Config

from ...errors import InputError
from ..config_errors import close_match

__all__ = ['check_layout']

# Top-level keys that MMEngine's runner reads. Others are the user's variables.
KEYS = (
    'model', 'work_dir', 'train_dataloader', 'val_dataloader', 'test_dataloader',
    'train_cfg', 'val_cfg', 'test_cfg', 'auto_scale_lr', 'optim_wrapper',
    'param_scheduler', 'val_evaluator', 'test_evaluator', 'default_hooks',
    'custom_hooks', 'data_preprocessor', 'load_from', 'resume', 'launcher', 'env_cfg',
    'log_processor', 'log_level', 'visualizer', 'default_scope', 'randomness',
    'experiment_name', 'custom_imports', 'tta_model', 'tta_pipeline')
GROUPS = dict(
    train=('train_dataloader', 'train_cfg', 'optim_wrapper'),
    val=('val_dataloader', 'val_cfg', 'val_evaluator'),
    test=('test_dataloader', 'test_cfg', 'test_evaluator'))
# Keys that MMEngine reads of a part; it ignores others.
READ = dict(env_cfg=('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
            auto_scale_lr=('enable', 'base_batch_size'))
# Keys that MMEngine's default constructor reads; it ignores others.
PARAMWISE = ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult',
             'flat_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult',
             'bypass_duplicate')
Kinds = Union[type, Tuple[type, ...]]


def check_layout(cfg: Config, stages: Sequence[str]) -> None:
    """Check the keys that the runner and the checks read, and their types.

    Args:
        cfg: a whole experiment.
        stages: of 'train', 'val' and 'test', that will run.

    Raises:
        InputError: naming the key and what is accepted.
    """
    _check_spelling(cfg)
    _check_groups(cfg, stages)
    _check_part(cfg.model, 'model', None)
    std = (cfg.model.get('data_preprocessor') or {}).get('std') or []
    if isinstance(std, (list, tuple)) and 0 in std:
        raise InputError(f'model.data_preprocessor.std is {std}; give numbers above 0')
    for key, names in READ.items():
        if cfg.get(key) is not None:
            _check_names(cfg[key], key, names)
    for stage in stages:
        if cfg.get(f'{stage}_dataloader') is not None:
            _check_loader(cfg[f'{stage}_dataloader'], f'{stage}_dataloader')
            _check_kind(cfg[f'{stage}_cfg'], f'{stage}_cfg', dict, 'a dict')
    if 'train' in stages:
        _check_training(cfg)
    hooks = _check_kind(cfg.get('default_hooks') or {}, 'default_hooks', dict,
                        'a dict of hooks by name')
    for name, hook in hooks.items():
        if hook is not None:
            _check_part(hook, f'default_hooks.{name}', None)
            for count in ('interval', 'max_keep_ckpts'):  # read after some iterations
                if hook.get(count) is not None:
                    _check_kind(hook[count], f'default_hooks.{name}.{count}', int,
                                'a whole number')
    custom = _check_kind(cfg.get('custom_hooks') or [], 'custom_hooks', (list, tuple),
                         'a list of hooks')
    for i, hook in enumerate(custom):
        _check_part(hook, f'custom_hooks[{i}]', None)


def _check_spelling(cfg: Config) -> None:
    """Raise InputError for a top-level key that is nearly one of MMEngine's.

    MMEngine ignores keys that it does not know, so the misspelt part would be
    missing without a word.
    """
    absent = [key for key in KEYS if key not in cfg]
    for key in cfg:
        close = difflib.get_close_matches(key, absent, 1, 0.9)
        if key not in KEYS and close:
            raise InputError(f'config has the key {key}, which nothing reads; did you '
                             f'mean {close[0]}?')


def _check_groups(cfg: Config, stages: Sequence[str]) -> None:
    """Raise InputError unless each stage has all of its keys, or none."""
    for keys in GROUPS.values():
        missing = [key for key in keys if cfg.get(key) is None]
        present = [key for key in keys if key not in missing]
        if missing and present:
            raise InputError(f'config has {" and ".join(present)}, but no '
                             f'{" and no ".join(missing)}; give all three or none')
    for stage, other in (('train', '; a config without them is for tools/test.py'),
                         ('test', ', such as those of val')):
        if stage in stages and cfg.get(f'{stage}_dataloader') is None:
            raise InputError(f'config has no {stage}_dataloader; give '
                             f'{", ".join(GROUPS[stage])}{other}')


def _check_kind(value: object, key: str, kind: Kinds, accepted: str) -> object:
    """Return a value, or raise InputError if it is of another type."""
    if not isinstance(value, kind) or isinstance(value, bool) and kind is int:
        raise InputError(f'{key} is {value!r}; give {accepted}')
    return value


def _check_part(part: object, key: str, needs: object = 'type') -> None:
    """Raise InputError unless this is a dict whose type is a name or a class."""
    _check_kind(part, key, dict, 'a dict')
    if needs and needs not in part:
        raise InputError(f'{key} has no {needs}{close_match(needs, part)}; add '
                         f'{needs}=...')
    if 'type' in part and not isinstance(part['type'], str) and not callable(
            part['type']):
        raise InputError(f'{key}.type is {part["type"]!r}; give the name of a '
                         'registered class')


def _check_count(part: dict, key: str, name: str, least: int) -> None:
    """Raise InputError unless a number, if it is there, is an int >= least."""
    value = part.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)
                              or value < least):
        raise InputError(f'{key}.{name} is {value!r}; give a whole number of {least} '
                         'or more')


def _check_loader(loader: object, key: str) -> None:
    _check_kind(loader, key, dict, 'a dict')
    for name in ('dataset', 'sampler'):
        if loader.get(name) is None:
            raise InputError(f'{key} has no {name}{close_match(name, loader)}; add '
                             f'{name}=dict(type=...)')
    _check_part(loader.sampler, f'{key}.sampler')
    _check_count(loader, key, 'batch_size', 1)
    _check_count(loader, key, 'num_workers', 0)
    _check_dataset(loader.dataset, f'{key}.dataset')


def _check_dataset(dataset: object, key: str) -> None:
    _check_part(dataset, key)
    for name, kind, accepted in (
            ('datasets', (list, tuple), 'a list of data sets'),
            ('data_root', str, 'a folder'),
            ('ann_file', str, 'a file'),
            ('img_suffix', (str, tuple), 'a suffix such as .jpg'),
            ('seg_map_suffix', str, 'a suffix such as .png'),
            ('data_prefix', dict, 'a dict of folders'),
            ('metainfo', dict, 'a dict with classes and palette'),
            ('pipeline', (list, tuple), 'a list of transforms')):
        if dataset.get(name) is not None:
            _check_kind(dataset[name], f'{key}.{name}', kind, accepted)
    _check_folders(dataset, key)
    for i, child in enumerate(dataset.get('datasets') or []):
        _check_dataset(child, f'{key}.datasets[{i}]')
    if isinstance(dataset.get('dataset'), dict):
        _check_dataset(dataset['dataset'], f'{key}.dataset')
    for i, transform in enumerate(dataset.get('pipeline') or []):
        _check_part(transform, f'{key}.pipeline[{i}]')


def _check_folders(dataset: dict, key: str) -> None:
    """Check data_prefix, and that labelled images have one suffix."""
    prefix = dataset.get('data_prefix') or dict(seg_map_path='')
    for name, folder in prefix.items():
        if folder is not None:
            _check_kind(folder, f'{key}.data_prefix.{name}', str, 'a folder')
        elif dataset.get('data_root') is not None:
            raise InputError(f'{key}.data_prefix.{name} is None, which MMEngine cannot '
                             'join with data_root; leave it out, and if the base '
                             'config has it, add _delete_=True to data_prefix')
    if isinstance(dataset.get('img_suffix'), tuple) and 'seg_map_path' in prefix:
        raise InputError(f'{key}.img_suffix is {dataset["img_suffix"]}, but the name '
                         'of a label follows from one suffix; rename the images, or '
                         'give ConcatDataset a data set for each suffix')


def _check_training(cfg: Config) -> None:
    """Check the parts that only training reads."""
    for name in ('max_iters', 'max_epochs', 'val_interval'):
        _check_count(cfg.train_cfg, 'train_cfg', name, 1)
    wrapper = cfg.optim_wrapper
    _check_part(wrapper, 'optim_wrapper', None)
    if 'constructor' not in wrapper:
        key = 'optim_wrapper.paramwise_cfg'
        paramwise = wrapper.get('paramwise_cfg') or {}
        _check_names(paramwise, key, PARAMWISE)
        custom = paramwise.get('custom_keys') or {}
        for name, part in _check_kind(custom, f'{key}.custom_keys', dict,
                                      'a dict').items():
            _check_names(part, f'{key}.custom_keys.{name}', ('lr_mult', 'decay_mult'))
    schedulers = cfg.get('param_scheduler') or []
    _check_kind(schedulers, 'param_scheduler', (dict, list, tuple),
                'a list of schedulers')
    for i, one in enumerate(schedulers if not isinstance(schedulers, dict) else []):
        _check_part(one, f'param_scheduler[{i}]')


def _check_names(part: object, key: str, names: Iterable[str]) -> None:
    """Raise InputError for a key that nothing reads, and that is nearly a known one."""
    for name in _check_kind(part, key, dict, 'a dict'):
        close = difflib.get_close_matches(name, names, 1, 0.8)
        if name not in names and close:
            raise InputError(f'{key}.{name} is not read; did you mean {close[0]}?')
