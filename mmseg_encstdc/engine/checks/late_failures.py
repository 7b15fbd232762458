"""Look for what would fail late in a run: at its last batch, or first validation."""
import inspect
from typing import Dict, Iterator, List, Optional, Tuple

from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseTTAModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from ...compat.data import DECODE_ERRORS
from ...errors import InputError
from ..config_errors import close_match, naming

__all__ = [
    'check_last_batch', 'check_monitored', 'check_saving', 'check_schedule',
    'check_sizes', 'check_various_sizes'
]

SAMPLE = 500  # training images whose size is read, spread evenly
TRIED = 3  # batches of unequal images
# Argument with the final rate, or its factor, and the argument's default.
FINAL = {'PolyLR': ('eta_min', 0), 'CosineAnnealingLR': ('eta_min', 0),
         'LinearLR': ('end_factor', 1)}
SAVING = ('CheckpointHook', 'SafeCheckpointHook')


def check_last_batch(loader: DataLoader, model: nn.Module, optim: OptimWrapper,
                     steps: int) -> None:
    """Train on one image, if the last batch of an epoch has one.

    Args:
        loader: of the training set.
        model: to train; it is changed.
        optim: its optimizer.
        steps: length of the run; without an epoch it has no last batch.

    Raises:
        InputError: when the model cannot.
    """
    batch, images = loader.batch_size, len(loader.sampler)
    if (not batch or batch == 1 or loader.drop_last or images % batch != 1
            or isinstance(loader.sampler, InfiniteSampler) or steps < len(loader)):
        return
    one = loader.collate_fn([loader.dataset[0]])
    try:
        model.train_step(one, optim_wrapper=optim)
    except Exception as error:
        raise InputError(
            f'train_dataloader: {images} images in batches of {batch} leave a last '
            'batch of one image, on which this network cannot train '
            f'({_first_line(error)}); set train_dataloader.drop_last=True') from error


def check_sizes(key: str, loader: DataLoader, model: nn.Module) -> None:
    """Preprocess batches whose images differ in size, up to three.

    Args:
        key: of the loader, in the config.
        loader: of an evaluation.
        model: its ``data_preprocessor`` is used.

    Raises:
        InputError: when such a batch cannot be made.
    """
    if not loader.batch_size or loader.batch_size == 1 or isinstance(
            model, BaseTTAModel):
        return
    tried = 0
    for indices in loader.batch_sampler:
        sizes = [_size(loader.dataset, i) for i in indices]
        if None in sizes:
            return
        if len(set(sizes)) == 1:
            continue
        _preprocess(key, loader, model, indices, False,
                    f'set {key}.batch_size=1')
        tried += 1
        if tried == TRIED:
            return


def check_various_sizes(loader: DataLoader, model: nn.Module) -> None:
    """Preprocess the smallest and the largest training image as one batch.

    Raises:
        InputError: when such a batch cannot be made.
    """
    shuffled = isinstance(loader.sampler, (DefaultSampler, InfiniteSampler))
    if not loader.batch_size or loader.batch_size == 1 or not shuffled:
        return
    count = len(loader.dataset)
    sizes = {i: _size(loader.dataset, i) for i in range(0, count, -(-count // SAMPLE))}
    if None in sizes.values() or len(set(sizes.values())) == 1:
        return
    ordered = sorted(sizes, key=lambda i: sizes[i][0] * sizes[i][1])
    _preprocess('train_dataloader', loader, model, [ordered[0], ordered[-1]], True,
                'add a RandomCrop to its pipeline, set model.data_preprocessor.size to '
                'its size, and size_divisor there to None')


def _preprocess(key: str, loader: DataLoader, model: nn.Module, indices: List[int],
                training: bool, remedy: str) -> None:
    """Make a batch of some images as the model does, or raise InputError."""
    batch = loader.collate_fn([loader.dataset[i] for i in indices])
    try:
        model.data_preprocessor(batch, training)
    except Exception as error:
        files = [f'{loader.dataset.get_data_info(i)["img_path"]} {w} x {h}'
                 for i in indices for w, h in [_size(loader.dataset, i)]]
        raise InputError(
            f'{key}.batch_size is {loader.batch_size}, but its images differ in size '
            f'({files[0]}, {next(f for f in files if f != files[0])}) and cannot be '
            f'one batch ({_first_line(error)}); {remedy}') from error


def _size(dataset: object, index: int) -> Optional[Tuple[int, int]]:
    """Return (width, height) of an image file; None where it is not known."""
    try:
        with Image.open(dataset.get_data_info(index)['img_path']) as image:
            return image.size
    except (*DECODE_ERRORS, AttributeError, KeyError, ValueError):
        return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def _hooks(cfg: Config, argument: str) -> Iterator[Tuple[str, dict]]:
    """Yield key and config of the hooks that have an argument."""
    hooks = [(f'default_hooks.{name}', hook)
             for name, hook in (cfg.get('default_hooks') or {}).items()]
    hooks += [(f'custom_hooks[{i}]', hook)
              for i, hook in enumerate(cfg.get('custom_hooks') or [])]
    for key, hook in hooks:
        if isinstance(hook, dict) and hook.get(argument) is not None:
            yield key, hook


def check_saving(cfg: Config) -> None:
    """Raise InputError for arguments of CheckpointHook that fail at its first save.

    It passes arguments that it does not know on to ``Runner.save_checkpoint``.
    """
    known = [*inspect.signature(CheckpointHook).parameters,
             *inspect.signature(Runner.save_checkpoint).parameters, 'type', 'priority']
    for key, hook in _hooks(cfg, 'type'):
        if hook['type'] in SAVING:
            for name in hook:
                if name not in known:
                    raise InputError(
                        f'{key}.{name}: CheckpointHook has no argument {name}'
                        f'{close_match(name, known) or "; remove it"}')


def check_schedule(cfg: Config) -> None:
    """Check that a run is not longer than a schedule that ends at a rate of 0.

    Args:
        cfg: a whole experiment.

    Raises:
        InputError: when its last iterations, or epochs, would train nothing.
    """
    schedulers = cfg.get('param_scheduler') or []
    if not isinstance(schedulers, list) or not schedulers:
        return
    unit = 'epochs' if cfg.train_cfg.get('max_epochs') else 'iters'
    length = cfg.train_cfg.get(f'max_{unit}')
    ends = [one.get('end') for one in schedulers
            if bool(one.get('by_epoch', True)) == (unit == 'epochs')]
    if len(ends) < len(schedulers) or not all(
            isinstance(number, int) for number in (length, *ends)):
        return
    last = schedulers[ends.index(max(ends))]
    final = {name: last.get(key, default) for name, (key, default) in FINAL.items()}
    if max(ends) < length and final.get(last.get('type')) == 0 and not last.get(
            'eta_min_ratio'):
        raise InputError(
            f'param_scheduler ends at {max(ends)} with a learning rate of 0, but '
            f'train_cfg.max_{unit} is {length}: nothing is learned after the schedule; '
            'make them equal' + (', or set the length with --max-iters, which '
                                 'stretches the schedule' if unit == 'iters' else ''))


def check_monitored(cfg: Config, measured: Dict[str, float]) -> None:
    """Check that the measures that hooks and schedulers look at exist.

    Args:
        cfg: a whole experiment.
        measured: what val_evaluator measures.

    Raises:
        InputError: naming the key and the measures that there are.
    """
    for key, hook in _hooks(cfg, 'save_best'):
        if hook['type'] not in SAVING:
            continue
        names = hook['save_best']
        names = [names] if isinstance(names, str) else names
        for name in names:
            _check_measured(f'{key}.save_best', name, measured, ('auto', ))
        rules = {k: hook[k] for k in ('rule', 'greater_keys', 'less_keys') if k in hook}
        ranked = [next(iter(measured)) if n == 'auto' else n for n in names]
        with naming(cfg, key):
            CheckpointHook(save_best=ranked, **rules)
    for key, hook in _hooks(cfg, 'monitor'):
        if hook['type'] == 'EarlyStoppingHook':  # else it never stops
            _check_measured(f'{key}.monitor', hook['monitor'], measured)
    schedulers = cfg.get('param_scheduler') or []
    for i, one in enumerate(schedulers if isinstance(schedulers, list) else []):
        if str(one.get('type')).startswith('ReduceOnPlateau'):
            _check_measured(f'param_scheduler[{i}].monitor',
                            one.get('monitor', 'loss'), measured)


def _check_measured(key: str, name: str, measured: Dict[str, float],
                    others: Tuple[str, ...] = ()) -> None:
    if name not in measured and name not in others:
        raise InputError(f'{key} is {name!r}, which val_evaluator does not measure'
                         f'{close_match(name, measured)}; it measures '
                         f'{", ".join(measured)}')
