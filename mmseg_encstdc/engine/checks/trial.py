"""Try a run before it starts: build all its parts, and pass one batch through them."""
import copy
import gc
import os
import sys
import tempfile
from contextlib import contextmanager
from typing import Dict, Iterator, List, Sequence

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import EarlyStoppingHook, EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import TestLoop, ValLoop
from torch import nn
from torch.utils.data import DataLoader

from ...compat.trial import note_failures, unchanged_state
from ...errors import InputError
from ..config_errors import naming
from ..configs import bind_classes, datasets_of
from .late_failures import (
    check_last_batch,
    check_monitored,
    check_saving,
    check_schedule,
    check_sizes,
    check_various_sizes,
)
from .layout import check_layout
from .parts import check_config
from .trial_runner import TrialRunner, modules_of, transforms_of

__all__ = ['try_run', 'try_training']

# Metrics of this package and of MMSegmentation that can be computed on one batch.
# CityscapesMetric, for one, needs the whole set.
COMPUTED = ('BoundaryMetric', 'ClassAccuracy', 'ConfusionMetric', 'IoUMetric',
            'PairAccuracy')
OUTPUTS = ('output_dir', 'outfile_prefix')  # arguments of metrics that write files


def try_run(cfg: Config, stages: Sequence[str]) -> None:
    """Build all parts of a run, and pass one batch of each loader through them.

    A second runner with a second model does this, in a temporary work dir, so
    weights, random generators and the order of the data are as if it had not run.
    It trains one step and evaluates one batch. With several processes each does so,
    and the first error of any ends all.

    Args:
        cfg: a whole experiment; not changed.
        stages: of 'train', 'val' and 'test'.

    Raises:
        InputError: naming the key of the config that failed, its value and what is
            accepted.
    """
    with unchanged_state(), note_failures(), tempfile.TemporaryDirectory() as folder:
        with _agreed(), naming(cfg, 'config'):
            runner = TrialRunner.from_cfg(_trial_config(cfg, folder))
        hooks = list(runner.hooks)
        runner.hooks.clear()  # they log, save and draw
        measured = {}
        if 'train' in stages:
            _try_training(runner, cfg, hooks)
        for stage in stages:
            if stage != 'train':
                measured[stage] = _try_evaluation(runner, stage)
        if 'train' in stages and measured.get('val'):
            check_monitored(cfg, measured['val'])
        del runner, hooks
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def try_training(cfg: Config) -> str:
    """Try a training: its train, val and, where they are there, test set.

    Training does not use the test set, so a fault of it is one line of warning.

    Args:
        cfg: see :func:`try_run`.

    Returns:
        What was tried, for the user.

    Raises:
        InputError: see :func:`try_run`.
    """
    stages = [s for s in ('train', 'val') if cfg.get(f'{s}_dataloader') is not None]
    try_run(cfg, stages)
    if cfg.get('test_dataloader') is not None:
        try:
            if _has_test_set(cfg):
                try_run(cfg, ['test'])
                stages.append('test')
        except InputError as error:
            if get_rank() == 0:
                print('warning: the test set, which training does not need, cannot be '
                      f'used: {error}', file=sys.stderr)
    return f'one batch of {", ".join(stages)} passed pipeline, model, loss and metric'


def _has_test_set(cfg: Config) -> bool:
    """Return whether there is a test set on disk that is not the validation set.

    Raises:
        InputError: when its part of the config is not valid.
    """
    check_layout(cfg, ['test'])
    cfg = copy.deepcopy(cfg)
    with naming(cfg, 'config'):
        bind_classes(cfg, ['test_dataloader'])
        if all(cfg[f'test_{part}'] == cfg.get(f'val_{part}')
               for part in ('dataloader', 'evaluator')):
            return False
        roots = [d.get('data_root') for d in datasets_of(cfg.test_dataloader.dataset)]
        if not all(os.path.exists(root) for root in roots if root):
            return False
        check_config(cfg, ['test_dataloader'])
    return True


def _trial_config(cfg: Config, folder: str) -> Config:
    """Return a copy of a config that writes to a temporary folder."""
    trial = copy.deepcopy(cfg)
    trial.work_dir = folder
    for stage in ('val', 'test'):
        for metric in _metrics(trial.get(f'{stage}_evaluator')):
            for key in OUTPUTS:
                if isinstance(metric, dict) and metric.get(key):
                    metric[key] = os.path.join(folder, stage)
    checkpoint = (trial.get('default_hooks') or {}).get('checkpoint')
    if checkpoint and checkpoint.get('save_best') and not checkpoint.get('rule'):
        checkpoint.rule = 'greater'  # which metrics there are is known later
    return trial


def _metrics(evaluator: object) -> list:
    """Return the configs of the metrics of an evaluator."""
    if isinstance(evaluator, dict):
        evaluator = evaluator.get('metrics', evaluator)
    return evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]


@contextmanager
def _agreed() -> Iterator[None]:
    """Raise the first error of any process in all processes.

    A process that went on alone would wait for the others without end.
    """
    found = None
    try:
        yield
    except InputError as error:
        found = error
    if get_world_size() > 1:
        messages = [m for m in all_gather_object(str(found) if found else '') if m]
        if messages and not found:
            found = InputError(messages[0])
    if found:
        raise found


def _try_training(runner: TrialRunner, cfg: Config, hooks: List[Hook]) -> None:
    """Build what trains, and train one step."""
    model = _unwrapped(runner.model)
    runner.stage = 'train'
    with _agreed():
        loader = runner.train_loop.dataloader
        with naming(cfg, 'model'):
            if hasattr(model, 'init_weights'):
                model.init_weights()
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        if runner.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(
                runner.param_schedulers)
        with naming(cfg, 'custom_hooks'):
            for hook in hooks:
                if isinstance(hook, (EMAHook, EarlyStoppingHook)):
                    hook.before_run(runner)
        check_saving(cfg)
        check_schedule(cfg)
    with _agreed():
        check_various_sizes(loader, model)
        batch = _first_batch(cfg, 'train_dataloader', loader)
    with _agreed():
        with naming(cfg, 'model', modules_of(model)):
            runner.optim_wrapper.initialize_count_status(
                model, 0, runner.train_loop.max_iters)
            model.train()
            model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        _step_schedulers(runner, cfg)
        check_last_batch(loader, model, runner.optim_wrapper,
                         runner.train_loop.max_iters)


def _step_schedulers(runner: TrialRunner, cfg: Config) -> None:
    """Step the schedulers that need no measure once."""
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, list):
        for i, scheduler in enumerate(schedulers):
            if not getattr(scheduler, 'need_val_args', False):
                with naming(cfg, f'param_scheduler[{i}]' if isinstance(
                        cfg.param_scheduler, (list, tuple)) else 'param_scheduler'):
                    scheduler.step()


def _try_evaluation(runner: TrialRunner, stage: str) -> Dict[str, float]:
    """Evaluate one batch.

    Returns:
        What the metrics measured; empty where one of them needs the whole set.
    """
    cfg = runner.cfg
    runner.stage = stage
    with _agreed():
        loop = runner.val_loop if stage == 'val' else runner.test_loop
    if not isinstance(loop, (ValLoop, TestLoop)):
        return {}
    key = f'{stage}_dataloader'
    with _agreed():
        batch = _first_batch(cfg, key, loop.dataloader)
        check_sizes(key, loop.dataloader, _unwrapped(runner.model))
    metrics = loop.evaluator.metrics
    several = isinstance(cfg.get(f'{stage}_evaluator'), (list, tuple))
    objects = [*modules_of(_unwrapped(runner.model)), *(
        (f'{stage}_evaluator[{i}]' if several else f'{stage}_evaluator', metric)
        for i, metric in enumerate(metrics))]
    advice = _advice(loop.dataloader.dataset, stage)
    with _agreed(), naming(cfg, 'model', objects, advice):
        runner.model.eval()
        loop.run_iter(0, batch)
    if any(type(metric).__name__ not in COMPUTED for metric in metrics):
        return {}
    with _agreed(), naming(cfg, f'{stage}_evaluator', objects, advice):
        return loop.evaluator.evaluate(len(batch['inputs']) * get_world_size())


def _advice(dataset: object, stage: str) -> str:
    """Return what to do if evaluation fails for want of classes or labels."""
    if not (getattr(dataset, 'metainfo', None) or {}).get('classes'):
        return (f'{stage}_dataloader.dataset has no classes; give it '
                'metainfo=dict(classes=[...])')
    return ''


def _first_batch(cfg: Config, key: str, loader: DataLoader) -> dict:
    """Return the first batch of a loader."""
    with naming(cfg, key, transforms_of(loader.dataset, f'{key}.dataset')):
        for batch in loader:
            return batch
    raise InputError(f'{key} has no batch: its data set of {len(loader.dataset)} '
                     'images is smaller than batch_size, or empty; lower batch_size')


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside the wrapper of several processes."""
    return model.module if is_model_wrapper(model) else model
