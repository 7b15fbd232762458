#!/usr/bin/env python
"""Train and predict for long, and see whether the memory grows.

dev/soak.py writes benchmarks/results/soak.json: resident memory of the process and its
data workers during 2,000 iterations of a small EncNet with 2 workers, with validation
and checkpoints; during 5,000 predictions of files and arrays of 16 sizes; and during
2,000 of ever new sizes, for each of which oneDNN keeps compiled convolutions, at most
ONEDNN_PRIMITIVE_CACHE_CAPACITY (1,024) of them. Each has the slope of a line through
its last three quarters.
"""
import argparse
import sys
import tempfile
from pathlib import Path
from typing import List, Tuple

ROOT = Path(__file__).resolve().parents[1]
for folder in ('', 'benchmarks', 'dev'):
    sys.path.insert(0, str(ROOT / folder))

import fuzz_configs  # noqa: E402
import numpy as np  # noqa: E402
import record  # noqa: E402
import torch  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from mmseg_encstdc.apis import load, predict  # noqa: E402
from mmseg_encstdc.engine import build_runner, prepare_run  # noqa: E402

EVERY = 50  # steps between two readings
WARM_UP = 1 / 4  # of the readings, left out of the line
SIDES = (32, 128)  # least and largest side of the predicted arrays
SIZES = 16  # of these arrays
NEW_SIZES = 2000  # predictions of ever new sizes
CONFIG = 'encnet_r18_scenes'


def resident() -> float:
    """Return the resident memory of this process and its children in MiB."""
    own = Path('/proc/self/task')
    pids = ['self', *(child for task in own.iterdir()
                      for child in (task / 'children').read_text().split())]
    kilobytes = 0
    for pid in pids:
        status = Path(f'/proc/{pid}/status').read_text()
        kilobytes += int(status.split('VmRSS:')[1].split()[0])
    return kilobytes / 1024


def line(readings: List[Tuple[int, float]]) -> dict:
    """Return readings of (step, MiB), and the slope after the warm-up."""
    steps, memory = np.array(readings[int(len(readings) * WARM_UP):]).T
    slope = np.polyfit(steps, memory, 1)[0]
    return dict(mib_per_1000_steps=round(1000 * float(slope), 3),
                mib_at_end=round(float(memory[-1]), 1),
                readings=[[step, round(value, 1)] for step, value in readings])


class ReadMemory(Hook):
    """Read the memory after every 50th iteration."""

    def __init__(self):
        self.readings = []

    def after_train_iter(self, runner: Runner, batch_idx: int, *args,
                         **kwargs) -> None:
        """Read it."""
        if self.every_n_train_iters(runner, EVERY):
            self.readings.append((runner.iter + 1, resident()))


def soak_training(data: Path, iterations: int) -> dict:
    """Train with workers, validation and checkpoints."""
    cfg = fuzz_configs.small(CONFIG, data)
    cfg.work_dir = str(data / 'work')
    cfg.train_dataloader.update(num_workers=2, persistent_workers=True)
    cfg.train_cfg.update(max_iters=iterations, val_interval=iterations // 10)
    cfg.param_scheduler = [dict(type='PolyLR', end=iterations, by_epoch=False)]
    cfg.default_hooks.checkpoint.update(interval=iterations // 20, max_keep_ckpts=2)
    cfg.model.backbone.update(base_channels=8, stem_channels=8)
    cfg.model.decode_head.update(in_channels=[16, 32, 64], channels=16, num_codes=4)
    cfg.model.auxiliary_head.update(in_channels=32, channels=8)
    prepare_run(cfg, ['train_dataloader', 'val_dataloader'], training=True)
    runner = build_runner(cfg)
    hook = ReadMemory()
    runner.register_hook(hook)
    runner.train()
    cfg.dump(data / 'trained.py')
    return line(hook.readings)


def soak_predictions(data: Path, count: int, sizes: int) -> dict:
    """Predict files and arrays in turn.

    Args:
        data: folder of the training, with its checkpoint and images.
        count: of predictions.
        sizes: how many sizes the arrays have.
    """
    checkpoint = (data / 'work/last_checkpoint').read_text().strip()
    model = load(checkpoint, str(data / 'trained.py'), device='cpu')
    files = sorted(data.rglob('*.jpg'))
    rng = np.random.default_rng(0)
    all_sides = rng.integers(*SIDES, (sizes, 2))
    readings = []
    for step in range(1, count + 1):
        sides = all_sides[step // 2 % sizes]
        image = files[step // 2 % len(files)] if step % 2 else rng.integers(
            0, 256, (*sides, 3), np.uint8)
        labels = predict(model, image)
        assert step % 2 or labels.shape == tuple(sides)
        if step % EVERY == 0:
            readings.append((step, resident()))
    return line(readings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--iterations', type=int, default=2000)
    parser.add_argument('--predictions', type=int, default=5000)
    parser.add_argument('--out', help='write here instead of benchmarks/results')
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        classes = fuzz_configs.CONFIGS[CONFIG]
        fuzz_configs.write_data(data / str(classes), classes)
        figures = dict(training=soak_training(data, args.iterations),
                       predictions=soak_predictions(data, args.predictions, SIZES),
                       predictions_of_new_sizes=soak_predictions(
                           data, NEW_SIZES, NEW_SIZES))
    record.write('soak', figures, kind='cpu', out=args.out)
    print({name: {k: v for k, v in one.items() if k != 'readings'}
           for name, one in figures.items()})


if __name__ == '__main__':
    main()
