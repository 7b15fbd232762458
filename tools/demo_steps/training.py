"""Time, train and evaluate the demo's networks."""
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Callable, List, Optional, Tuple

import mmengine
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_encstdc.engine import load_config, stretch_schedule

from .pictures import read_labels
from .time_plan import Cost

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TIMED_ITERATIONS = 5
TIMED_SECONDS = 3  # fewer iterations where these would take longer
TIMED_IMAGES = 2


class Progress(Hook):
    """One short line every ten seconds, instead of MMEngine's log.

    Args:
        name: of the network.
        minutes_left: of the demo, by the number of iterations done.
    """

    def __init__(self, name: str, minutes_left: Callable[[int], float]):
        self.name = name
        self.minutes_left = minutes_left
        self.printed = time.monotonic()

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        done = runner.iter + 1
        if time.monotonic() - self.printed < 10 and done < runner.max_iters:
            return
        self.printed = time.monotonic()
        loss = runner.message_hub.get_scalar('train/loss').mean(50)
        print(f'  {self.name}: {done}/{runner.max_iters} iterations, '
              f'loss {loss:.2f}, {self.minutes_left(done):.1f} minutes left',
              flush=True)


class Stopwatch(Hook):
    """Note when each iteration ends, and end a training that is slow."""

    def __init__(self):
        self.train: List[float] = []
        self.test: List[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self.train.append(time.monotonic())
        if self.train[-1] - self.train[0] > TIMED_SECONDS:
            runner.train_loop.stop_training = True

    def after_test_iter(self, runner, batch_idx, data_batch=None,
                        outputs=None):
        self.test.append(time.monotonic())

    @staticmethod
    def interval(ends: List[float]) -> float:
        """Return the median seconds of an iteration but the first."""
        return median(b - a for a, b in zip(ends, ends[1:]))


def load_experiment(config: str, data: Path,
                    folder: Path) -> mmengine.Config:
    """Read a config for the data set at ``data``, to be run in ``folder``."""
    cfg = load_config(str(CONFIGS / f'{config}.py'))
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        loader.dataset.data_root = str(data)
    cfg.work_dir = str(folder)
    cfg.log_level = 'WARNING'
    # Each runner has its own log and visualizer; MMEngine finds them by name.
    cfg.experiment_name = cfg.visualizer.name = f'{config}_{time.time_ns()}'
    return cfg


def measure_cost(config: str, data: Path, longest: Optional[int]) -> Cost:
    """Time a few iterations and a few images of one network.

    Args:
        config: name of a file of configs/.
        data: folder of the data set.
        longest: bound of the number of iterations, None for the config's.
    """
    images = len(list((data / 'images' / 'val').glob('*.png')))
    timed = min(TIMED_IMAGES, images)
    with TemporaryDirectory() as folder:
        cfg = load_experiment(config, data, Path(folder))
        iterations = cfg.train_cfg.max_iters
        stretch_schedule(cfg, TIMED_ITERATIONS)
        cfg.train_cfg.val_interval = TIMED_ITERATIONS + 1
        cfg.default_hooks.checkpoint = None
        cfg.test_dataloader.dataset.indices = timed
        started, watch = time.monotonic(), Stopwatch()
        runner = Runner.from_cfg(cfg)
        runner.register_hook(watch)
        runner.train()
        runner.test()
        passed = time.monotonic() - started
    seconds = watch.interval(watch.train)
    fixed = passed - seconds * len(watch.train)
    if timed > 1:
        fixed += (images - timed) * watch.interval(watch.test)
    return Cost(min(iterations, longest or iterations), seconds, fixed)


def run_network(name: str, config: str, data: Path, out: Path,
                iterations: int,
                minutes_left: Callable[[int], float]) -> Tuple:
    """Train and evaluate one network.

    Returns:
        measures in percent, label maps {image name: (H, W)}, seconds of
        training.
    """
    cfg = load_experiment(config, data, out / config)
    if iterations != cfg.train_cfg.max_iters:
        stretch_schedule(cfg, iterations)
    cfg.train_cfg.val_interval = cfg.train_cfg.max_iters + 1
    cfg.test_evaluator[0].output_dir = str(out / config / 'labels')
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Progress(name, minutes_left))
    started = time.monotonic()
    runner.train()
    seconds = time.monotonic() - started
    scores = runner.test()
    return scores, read_labels(out / config / 'labels'), seconds
