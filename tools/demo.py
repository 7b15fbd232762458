#!/usr/bin/env python
"""Generate Scenes, train EncNet and STDC on it, and compare: tools/demo.py

Everything goes below --out: a table (results.json), a picture
(comparison.png), overlays and checkpoints. It also scores two baselines: the
most frequent class at each pixel position, and a network that sees 15 x 15
pixels. That network is trained first and gives first_picture.png, planned
within a third of the time.

The demo measures the speed of this machine and shortens the schedules, and
their learning rates with them, if --minutes is too short for them.
"""
import argparse
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
try:
    from demo_steps.baseline import majority
    from demo_steps.pictures import draw, write_overlays
    from demo_steps.time_plan import TimePlan
    from demo_steps.training import measure_cost, run_network
    from mmengine.logging import MMLogger
    from prettytable import PrettyTable

    from mmseg_encstdc.compat import quiet
    from mmseg_encstdc.engine import check_writable
    from mmseg_encstdc.errors import InputError, one_line_errors
except ImportError as error:
    sys.exit(f'error: {error}')

NETWORKS = {
    '15 x 15 pixels': 'local_scenes',
    'EncNet-R18': 'encnet_r18_scenes',
    'STDC1': 'stdc1_scenes',
}
MAJORITY = 'majority by place'
MINUTES = 8


def make_data(data: Path) -> None:
    """Generate the data set if the folder has none."""
    if (data / 'scenes.json').exists():
        return
    made = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / 'make_scenes.py'), str(data)])
    if made.returncode:  # it has said why
        sys.exit(made.returncode)


def compare(plan: TimePlan, data: Path, out: Path) -> Dict[str, dict]:
    """Train, evaluate and draw every network.

    Returns:
        name: scores in percent, seconds of training and iterations.
    """
    results, predictions = {}, {}
    for name, config in NETWORKS.items():
        whole, iterations = plan.costs[name].iterations, plan.start(name)
        if iterations < whole:
            print(f'{name}: {iterations} of {whole} iterations, to keep to '
                  f'{plan.minutes:.3g} minutes', flush=True)
        scores, labels, seconds = run_network(
            name, config, data, out, iterations,
            lambda done, name=name: plan.minutes_left(name, done))
        results[name] = dict(
            scores=scores, train_seconds=seconds, iterations=iterations)
        predictions[name] = labels
        write_overlays(data, labels, out / config / 'overlays')
        if len(predictions) == 1:
            draw(data, predictions, out / 'first_picture.png')
            print(f'image, label, {name}: {out}/first_picture.png', flush=True)
        plan.finish(name)
    draw(data, predictions, out / 'comparison.png')
    return results


def print_table(results: Dict[str, dict]) -> None:
    """Print all results in percent, and how much they vary."""
    columns = list(next(iter(results.values()))['scores'])
    table = PrettyTable(['val, percent', *columns, 'iterations', 'training'])
    for name, result in results.items():
        seconds = result['train_seconds']
        table.add_row([name] + [f'{result["scores"][c]:.1f}' for c in columns] +
                      [result['iterations'] or '-',
                       f'{seconds:.0f} s' if seconds else '-'])
    print(table)
    print('a|b: share of the pixels of two classes of one look that are told '
          'apart; chance is 50')
    print('The same seed gives other numbers on another processor, and after '
          'fewer iterations; benchmarks/results/demo.json has one whole run.')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='data/scenes')
    parser.add_argument('--out', default='work_dirs/demo')
    parser.add_argument(
        '--minutes', type=float, help='for data, training and evaluation; '
        f'schedules are shortened to keep to it. Default: {MINUTES}, and more on a '
        'machine that is too slow for that')
    parser.add_argument(
        '--max-iters', type=int, help='shorten every training to this, for a '
        'trial')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    started = time.monotonic()
    data, out = Path(args.data), Path(args.out)
    with one_line_errors(), quiet():
        minutes = MINUTES if args.minutes is None else args.minutes
        plan = TimePlan(minutes, len(NETWORKS), may_extend=args.minutes is None)
        if args.max_iters is not None and args.max_iters < 1:
            raise InputError(
                f'--max-iters must be at least 1, got {args.max_iters}')
        check_writable(str(out))
        make_data(data)
        MMLogger.get_instance('demo', log_level=logging.WARNING)
        results = {MAJORITY: dict(
            scores=majority(data), train_seconds=None, iterations=None)}
        print('measuring the speed of this machine', flush=True)
        for name, config in NETWORKS.items():
            plan.add_cost(name, measure_cost(config, data, args.max_iters))
        if plan.minutes > minutes:
            print(f'this machine is too slow for {minutes} minutes; the demo takes '
                  f'{plan.minutes:.0f}', flush=True)
        results.update(compare(plan, data, out))
    (out / 'results.json').write_text(json.dumps(results, indent=1))
    print_table(results)
    print(f'image, label, {", ".join(NETWORKS)}: {out}/comparison.png')
    print(f'{(time.monotonic() - started) / 60:.1f} minutes')


if __name__ == '__main__':
    main()
