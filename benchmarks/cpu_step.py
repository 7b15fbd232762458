#!/usr/bin/env python
"""Measure on what a training step of STDC1 spends its time on a CPU.

python benchmarks/cpu_step.py writes results/cpu_step.json: seconds of a step with 8
crops of 240 x 320, with weights as they are and with channels last, measured in turn;
with --compile also with the backbone compiled by torch.compile; and the percentage of
the time that each group of operators takes. The batch is the same in every step, so
that no data are loaded.
"""
import argparse
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Callable, Dict

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import record  # noqa: E402
import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.model.utils import revert_sync_batchnorm  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmengine.structures import PixelData  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402
from torch import nn  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

import mmseg_encstdc  # noqa: E402, F401

CONFIG = 'configs/stdc1_camvid.py'
BATCH, SIZE, CLASSES = 8, (240, 320), 11
WARM_UP = 2  # steps
# Part of an operator's name, and its group; the first that fits counts.
GROUPS = (('conv', 'convolutions'), ('batch_norm', 'batch norm'),
          ('cross_entropy', 'losses'), ('pool', 'pooling'),
          ('threshold', 'ReLU'), ('relu', 'ReLU'))


def make_step(channels_last: bool, compiled: bool) -> Callable[[], None]:
    """Return a function that trains one step on a batch that stays the same."""
    torch.manual_seed(0)
    model = revert_sync_batchnorm(
        MODELS.build(Config.fromfile(ROOT / CONFIG).model)).train()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if compiled:
        model.backbone.backbone = torch.compile(model.backbone.backbone)
    images = torch.randn(BATCH, 3, *SIZE)  # (B, 3, H, W)
    blocks = torch.randint(0, CLASSES, (BATCH, 1, SIZE[0] // 16, SIZE[1] // 16))
    labels = nn.functional.interpolate(blocks.float(), SIZE).long()  # (B, 1, H, W)
    samples = [SegDataSample(metainfo=dict(img_shape=SIZE)) for _ in labels]
    for sample, label in zip(samples, labels):
        sample.gt_sem_seg = PixelData(data=label)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        total, _ = model.parse_losses(model.loss(images, samples))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return step


def measure(steps: Dict[str, Callable[[], None]], rounds: int) -> Dict[str, float]:
    """Return the median seconds of each step, run in turn."""
    seconds: Dict[str, list] = {name: [] for name in steps}
    for number in range(WARM_UP + rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return {name: round(statistics.median(all_), 3) for name, all_ in seconds.items()}


def fractions(step: Callable[[], None]) -> Dict[str, float]:
    """Return the percentage of a step that each group of operators takes itself."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    found: Counter = Counter()
    for event in profiler.key_averages():
        group = next((group for word, group in GROUPS if word in event.key), 'others')
        found[group] += event.self_cpu_time_total
    return {group: round(100 * value / found.total(), 1)
            for group, value in found.most_common()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--out', help='write here instead of benchmarks/results')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    init_default_scope('mmseg')
    steps = {'as they are': make_step(False, False),
             'channels last': make_step(True, False)}
    if args.compile:
        steps['compiled'] = make_step(False, True)
    figures = dict(batch=BATCH, size=SIZE, seconds=measure(steps, args.rounds),
                   percent=fractions(steps['channels last']))
    record.write('cpu_step', figures, kind='cpu', out=args.out)
    print(figures)


if __name__ == '__main__':
    main()
