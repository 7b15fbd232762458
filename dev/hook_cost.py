#!/usr/bin/env python
"""Measure which part of a training step the plugin's own hooks take.

dev/hook_cost.py writes benchmarks/results/hook_cost.json. STDC1 trains on 8 crops of
240 x 320 on two CPU threads. Inside each iteration a clock runs while the functions of
GUARDS work: they seed, keep what a bad loss would spoil, look at the gradients, and ask
for signals.
"""
import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
for folder in ('', 'benchmarks', 'dev'):
    sys.path.insert(0, str(ROOT / folder))

import fuzz_configs  # noqa: E402
import record  # noqa: E402
import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from mmseg_encstdc.engine import (  # noqa: E402
    StopAtBadLoss,
    StopAtSignal,
    StopSignals,
    bad_losses,
    build_runner,
    loops,
    prepare_run,
    seeding,
)

GUARDS = ((loops, 'seed_generators'), (seeding, 'seed_generators'),
          (StopAtBadLoss, 'before_train_iter'), (bad_losses, '_all_finite'),
          (StopAtSignal, 'after_train_iter'))
CONFIG = 'stdc1_camvid'
WARM_UP = 3  # iterations


class Clock:
    """Add up the seconds that functions take."""

    def __init__(self):
        self.seconds = 0.0

    def timed(self, function):
        """Return a function that does the same while the clock runs."""

        def run(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return run


class ReadClock(Hook):
    """Read the clock, and the time, after every iteration."""
    priority = 'LOWEST'

    def __init__(self, clock: Clock):
        self.clock = clock
        self.readings = []

    def after_train_iter(self, runner: Runner, batch_idx: int, *args,
                         **kwargs) -> None:
        """Read both."""
        self.readings.append((time.perf_counter(), self.clock.seconds))


def measure(data: Path, iterations: int) -> dict:
    """Train, and return milliseconds of a step and of the functions in it (medians)."""
    cfg = Config.fromfile(ROOT / 'configs' / f'{CONFIG}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(data))
    cfg.work_dir = str(data / 'work')
    cfg.train_cfg.update(max_iters=iterations, val_interval=2 * iterations)
    prepare_run(cfg, ['train_dataloader', 'val_dataloader'], training=True)
    clock = Clock()
    reader = ReadClock(clock)
    with ExitStack() as stack:
        for place, name in GUARDS:
            stack.enter_context(
                patch.object(place, name, clock.timed(getattr(place, name))))
        runner = build_runner(cfg)
        for hook in (StopAtSignal(StopSignals()), StopAtBadLoss(), reader):
            runner.register_hook(hook)
        runner.train()
    pairs = list(zip(reader.readings[WARM_UP:], reader.readings[WARM_UP + 1:]))
    step, own = (statistics.median(1000 * (after[i] - before[i])
                                   for before, after in pairs) for i in (0, 1))
    return dict(iterations=len(pairs), step_ms=round(step, 1), hooks_ms=round(own, 2),
                percent=round(100 * own / step, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--iterations', type=int, default=40)
    parser.add_argument('--out', help='write here instead of benchmarks/results')
    args = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        classes = fuzz_configs.CONFIGS[CONFIG]
        fuzz_configs.write_data(Path(folder), classes)
        figures = measure(Path(folder), args.iterations)
    record.write('hook_cost', figures, kind='cpu', out=args.out)
    print(figures)


if __name__ == '__main__':
    main()
