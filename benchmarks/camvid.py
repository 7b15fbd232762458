#!/usr/bin/env python
"""Train and evaluate on CamVid within N iterations or M minutes.

python benchmarks/camvid.py configs/stdc1_camvid.py --iters 600
python benchmarks/camvid.py configs/stdc1_camvid.py --minutes 5 --amp \
    --crop 360 480 --batch 16

Runs tools/train.py, then tools/test.py without and with --tta, and writes
their figures and command lines to benchmarks/results/.
"""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import record

ROOT = Path(__file__).resolve().parents[1]
TRIAL = 60  # iterations that measure the speed


def run(command: list) -> float:
    """Run a tool from the repository; its seconds."""
    print('$', shlex.join(command), flush=True)
    started = time.time()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True,
                   stdout=subprocess.DEVNULL)
    return time.time() - started


def train(args, work: Path, iters: int) -> list:
    """The command that trains for ``iters`` iterations."""
    command = ['tools/train.py', args.config, '--work-dir', str(work),
               '--max-iters', str(iters)]
    if args.amp:
        command.append('--amp')
    options = list(args.cfg_options)
    if args.batch:
        options.append(f'train_dataloader.batch_size={args.batch}')
    if args.workers:
        options.append(f'train_dataloader.num_workers={args.workers}')
    if args.crop:
        options += crop_options(args.config, *args.crop)
    return command + (['--cfg-options', *options] if options else [])


def crop_options(config: str, height: int, width: int) -> list:
    """Overrides of every transform that knows the crop."""
    sys.path.insert(0, str(ROOT))
    from mmengine.config import Config

    import mmseg_encstdc  # noqa: F401
    pipeline = Config.fromfile(ROOT / config).train_pipeline
    key = 'train_dataloader.dataset.pipeline'
    options = []
    for i, transform in enumerate(pipeline):
        if 'crop_size' in transform:
            options.append(f'{key}.{i}.crop_size=({height},{width})')
        if transform['type'] == 'Pad':
            options.append(f'{key}.{i}.size=({width},{height})')
    return options


def seconds_per_iteration(work: Path) -> float:
    """Median of the logged iteration times after the first lines."""
    log = sorted(work.glob('*/vis_data/scalars.json'))[-1]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    times = [line['time'] for line in lines if 'time' in line and 'lr' in line]
    return statistics.median(times[1:] or times)


def evaluate(config: str, checkpoint: Path, out: Path, *flags) -> dict:
    """Measures of one evaluation, with its command line."""
    command = ['tools/test.py', config, str(checkpoint), '--work-dir',
               str(out / 'log'), '--out', str(out), *flags]
    run(command)
    metrics = json.loads((out / 'metrics.json').read_text())
    del metrics['confusion']
    return dict(command=shlex.join(['python', *command]), **metrics)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument('--iters', type=int)
    length.add_argument('--minutes', type=float, help='of training')
    parser.add_argument('--amp', action='store_true')
    parser.add_argument(
        '--no-tta', action='store_true', help='evaluate at one scale only')
    parser.add_argument('--batch', type=int)
    parser.add_argument('--workers', type=int)
    parser.add_argument('--crop', type=int, nargs=2, metavar=('H', 'W'))
    parser.add_argument('--name', help='of the result; default: the config')
    parser.add_argument('--work-dir', default='work_dirs/benchmark')
    parser.add_argument('--cfg-options', nargs='+', default=[])
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    name = args.name or f'{Path(args.config).stem}_' + (
        f'{args.iters}' if args.iters else f'{args.minutes:g}min')
    work = Path(args.work_dir) / name
    iters = args.iters
    if args.minutes:
        trial = work / 'trial'
        total = run(train(args, trial, TRIAL))
        each = seconds_per_iteration(ROOT / trial)
        start = max(total - TRIAL * each, 0)  # start-up and validation
        iters = max(int((60 * args.minutes - start) / each), 1)
    command = train(args, work, iters)
    seconds = run(command)
    checkpoint = work / f'iter_{iters}.pth'
    figures = dict(
        config=args.config,
        iterations=iters,
        train_seconds=round(seconds, 1),
        seconds_per_iteration=seconds_per_iteration(ROOT / work),
        train_command=shlex.join(['python', *command]),
        single_scale=evaluate(args.config, checkpoint, work / 'single'))
    if not args.no_tta:
        figures['tta'] = evaluate(args.config, checkpoint, work / 'tta',
                                  '--tta')
    path = record.write(f'camvid_{name}', figures)
    print(path.read_text())


if __name__ == '__main__':
    os.chdir(ROOT)
    main()
