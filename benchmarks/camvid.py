#!/usr/bin/env python
"""Train and evaluate a set of experiments on CamVid within some minutes.

python benchmarks/camvid.py stdc --minutes 90

Each run is one experiment with one seed. It writes results/camvid/NAME_seedS.json with
its curve, its val measures and its command lines. Runs that have a result are not
repeated. When the time is over, or at Ctrl-C, the training saves a checkpoint; the same
command goes on from there. benchmarks/camvid_sets.py lists the sets. --table prints the
results that there are.
"""
import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

import numpy as np
import record
import torch
from camvid_sets import SETS, Experiment
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_encstdc.evaluation import BoundaryMetric

ROOT = Path(__file__).resolve().parents[1]
VALIDATIONS = 3  # of a run
LOGGED = ('mIoU', 'FWIoU', 'PA')
MEASURES = (*LOGGED, 'mBF')


class TimeOver(Exception):
    """Report that the minutes are over."""


def run(command: List[str], log: Path, end: float, stock: bool) -> None:
    """Run a tool until it ends, or ask it to save and stop.

    Args:
        command: script and arguments.
        log: file for its output, which is added.
        end: time in seconds since the epoch.
        stock: whether MMSegmentation's classes stay in place.

    Raises:
        TimeOver: when it was stopped.
        subprocess.CalledProcessError: when it failed.
    """
    env = {**os.environ, 'MMSEG_ENCSTDC_OVERRIDE': '0' if stock else '1'}
    print('$', shlex.join(command), flush=True)
    with log.open('a') as file:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env,
                                   stdout=file, stderr=subprocess.STDOUT)
        try:
            code = process.wait(max(end - time.time(), 0))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as stop:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise TimeOver from stop
    if code:
        raise subprocess.CalledProcessError(code, command)


def train_command(one: Experiment, seed: int, work: Path, amp: bool) -> List[str]:
    """Return the command that trains, or goes on with a training."""
    interval = max(one.iterations // VALIDATIONS, 1)
    return ['tools/train.py', one.config, '--work-dir', str(work), '--resume',
            '--max-iters', str(one.iterations), *(['--amp'] if amp else []),
            '--cfg-options', f'randomness.seed={seed}',
            f'train_cfg.val_interval={interval}',
            'default_hooks.checkpoint.interval=50', *one.options]


def test_command(one: Experiment, work: Path, tta: bool) -> List[str]:
    """Return the command that evaluates the last checkpoint."""
    out = work / ('tta' if tta else 'single')
    return ['tools/test.py', one.config, str(work / f'iter_{one.iterations}.pth'),
            '--work-dir', str(out), '--out', str(out), *(['--tta'] if tta else [])]


def records(work: Path) -> Iterator[dict]:
    """Yield the lines of the logs of a work dir, in the order in which they began."""
    for path in sorted(work.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            yield json.loads(line)


def curve(work: Path) -> dict:
    """Return losses and val measures by iteration, and the seconds of an iteration."""
    losses, scores, seconds = {}, {}, []
    for line in records(work):
        if 'loss' in line:
            losses[line['iter']] = round(line['loss'], 4)
            seconds.append(line['time'])
        elif 'mIoU' in line:
            scores[line['step']] = {name: line[name] for name in LOGGED}
    return dict(seconds_per_iteration=round(statistics.median(seconds), 3),
                loss=losses, val=scores)


def measured(config: str, folder: Path) -> dict:
    """Return the measures of an evaluation, and of its boundaries.

    Args:
        config: of the experiment.
        folder: with metrics.json and the label maps that were predicted.
    """
    metrics = json.loads((folder / 'metrics.json').read_text())
    del metrics['confusion']
    cfg = Config.fromfile(ROOT / config)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    boundaries = BoundaryMetric()
    boundaries.dataset_meta = dataset.metainfo
    for sample in dataset:
        sample = sample['data_samples'].to_dict()
        path = folder / f'{Path(sample["img_path"]).stem}.png'
        sample['pred_sem_seg'] = dict(data=torch.from_numpy(
            np.array(Image.open(path)))[None])
        boundaries.process({}, [sample])
    return {**metrics, **boundaries.compute_metrics(boundaries.results)}


def run_experiment(one: Experiment, seed: int, args: argparse.Namespace,
                   end: float) -> None:
    """Train, evaluate and write the result, unless it is there."""
    name = f'{one.name}_{one.iterations}_seed{seed}{"_amp" if args.amp else ""}'
    result = Path(args.results) / f'{name}.json'
    if result.exists():
        return
    work = Path(args.work_dir).resolve() / name
    work.mkdir(parents=True, exist_ok=True)
    commands = [train_command(one, seed, work, args.amp),
                test_command(one, work, False)]
    commands += [test_command(one, work, True)] if args.tta else []
    for command in commands:
        run(command, work / 'output.txt', end, one.stock)
    figures = dict(config=one.config, seed=seed, iterations=one.iterations,
                   commands=[shlex.join(['python', *c]) for c in commands],
                   **curve(work), single=measured(one.config, work / 'single'))
    if args.tta:
        figures['tta'] = measured(one.config, work / 'tta')
    content = {**record.origin(kind='cuda' if args.amp else ''), **figures}
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(content, indent=1) + '\n')
    print(f'{name}: mIoU {figures["single"]["mIoU"]:.2f}', flush=True)


def results(folder: Path) -> Dict[Tuple[str, int], List[dict]]:
    """Return the results of a folder by config and length, one for each seed."""
    found: Dict[Tuple[str, int], List[dict]] = {}
    for path in sorted(folder.glob('*.json')):
        content = json.loads(path.read_text())
        found.setdefault((content['config'], content['iterations']), []).append(content)
    return found


def table(folder: Path) -> str:
    """Return a Markdown table of the means over seeds, with least and largest value."""
    rows = ['| config | iterations | seeds | ' + ' | '.join(MEASURES) + ' |',
            '|---' * (3 + len(MEASURES)) + '|']
    for (config, iterations), runs in results(folder).items():
        cells = [f'`{config}`', str(iterations), str(len(runs))]
        for name in MEASURES:
            values = [one['single'][name] for one in runs]
            cells.append(f'{statistics.mean(values):.2f}' + (
                f' ({min(values):.2f} to {max(values):.2f})' if len(runs) > 1 else ''))
        rows.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(rows)


def parse_args(words: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('set', choices=list(SETS))
    parser.add_argument('--minutes', type=float, default=float('inf'),
                        help='after which the command stops')
    parser.add_argument('--amp', action='store_true', help='mixed precision (GPU)')
    parser.add_argument('--tta', action='store_true',
                        help='evaluate with scales and flips too')
    parser.add_argument('--table', action='store_true', help='only print the results')
    parser.add_argument('--work-dir', default=str(ROOT / 'work_dirs/camvid'))
    parser.add_argument('--results', default=str(ROOT / 'benchmarks/results/camvid'))
    return parser.parse_args(words)


def main() -> None:
    args = parse_args()
    init_default_scope('mmseg')
    end = time.time() + 60 * args.minutes
    experiments = [] if args.table else SETS[args.set]
    seeds = sorted({seed for one in experiments for seed in one.seeds})
    try:
        for seed in seeds:
            for one in experiments:
                if seed in one.seeds:
                    run_experiment(one, seed, args, end)
    except TimeOver:
        print('stopped; the same command goes on')
    except subprocess.CalledProcessError as error:
        sys.exit(f'error: {error.cmd[0]} {error.cmd[1]} failed; its output is in '
                 f'output.txt of its folder in {args.work_dir}')
    print(table(Path(args.results)))


if __name__ == '__main__':
    main()
