"""Learning rate schedules: exponential warm-up, and changes of length."""
from typing import Iterable, List, Union

from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler
from torch.optim import Optimizer

from ..errors import InputError

__all__ = ['ExponentialWarmup', 'stretch_schedule']

STEPS = ('T_max', 'step_size')  # of CosineAnnealingLR and StepLR


class ExponentialWarmup(LRSchedulerMixin, _ParamScheduler):
    """Multiply the learning rate by a constant factor at each step.

    lr(t) = base * start_factor^(1 - t / T) with T = end - begin - 1. The last
    step has the base rate, as LinearLR's. Source: the authors' STDC-Seg code,
    1e-5 * 1000^(t / 1000).

    Args:
        optimizer: optimizer or its wrapper.
        start_factor: first rate over base rate, in (0, 1].
        **kwargs: ``begin``, ``end``, ``by_epoch`` ... of MMEngine's
            schedulers; ``end`` must be finite.

    Raises:
        ValueError: when ``start_factor`` is out of range or ``end`` is not finite.
    """

    def __init__(self, optimizer: Union[Optimizer, OptimWrapper],
                 start_factor: float = 1e-3, **kwargs):
        if not 0 < start_factor <= 1:
            raise ValueError(
                f'start_factor must be in (0, 1], got {start_factor}')
        begin, end = kwargs.get('begin', 0), kwargs.get('end', INF)
        if not 1 <= end - begin < INF:
            raise ValueError('ExponentialWarmup needs an end after its '
                             f'begin, got {begin} to {end}')
        steps = end - begin - 1
        self.start_factor = start_factor if steps else 1.
        self.growth = start_factor**(-1 / max(steps, 1))
        super().__init__(optimizer, **kwargs)

    def _get_value(self) -> List[float]:
        factor = self.start_factor if self.last_step == 0 else self.growth
        return [
            group[self.param_name] * factor
            for group in self.optimizer.param_groups
        ]


def stretch_schedule(cfg: Config, max_iters: int,
                     by_hand: Iterable[str] = ()) -> None:
    """Scale a schedule in iterations to another length.

    ``begin``, ``end`` and other steps of every scheduler and the intervals of
    validation and checkpoints scale with ``train_cfg.max_iters``.

    Args:
        cfg: changed in place.
        max_iters: new length, at least 1.
        by_hand: keys of the config that keep their value, such as
            'train_cfg.val_interval'.

    Raises:
        InputError: when the schedule counts epochs, or max_iters is below 1.
    """
    old = cfg.train_cfg.get('max_iters')
    if old is None:
        raise InputError('--max-iters needs a schedule in iterations; set '
                         'train_cfg.max_epochs with --cfg-options instead')
    if max_iters < 1:
        raise InputError(f'--max-iters must be at least 1, got {max_iters}')

    def scaled(steps: int) -> int:
        return max(1, round(steps * max_iters / old))

    def scale(part: dict, name: str, key: str) -> None:
        if 0 < (part.get(name) or 0) < INF and f'{key}.{name}' not in by_hand:
            part[name] = scaled(part[name])

    schedulers = cfg.get('param_scheduler') or []
    alone = isinstance(schedulers, dict)
    for i, scheduler in enumerate([schedulers] if alone else schedulers):
        key = 'param_scheduler' if alone else f'param_scheduler.{i}'
        for name in ('begin', 'end', *STEPS):
            scale(scheduler, name, key)
        if 'end' in scheduler:
            scheduler.end = max(scheduler.end, scheduler.get('begin', 0) + 1)
        if scheduler.get('milestones') and f'{key}.milestones' not in by_hand:
            scheduler.milestones = [scaled(step) for step in scheduler.milestones]
    cfg.train_cfg.max_iters = max_iters
    scale(cfg.train_cfg, 'val_interval', 'train_cfg')
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    scale(checkpoint, 'interval', 'default_hooks.checkpoint')
