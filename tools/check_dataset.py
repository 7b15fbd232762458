#!/usr/bin/env python
"""Read every image and label that a config names: tools/check_dataset.py CONFIG

Reads the training, validation and test sets with the loaders of their pipelines. Prints
the percentage of each class, of all pixels or, for a classifier, of all images. Faults
of one kind, such as missing files, other sizes, ids outside the classes or classes that
occur nowhere, are counted, and the first is named.
"""
import argparse
import json
import os
import sys
from pathlib import Path
from typing import Dict, Iterable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    from mmengine.config import Config, DictAction
    from mmengine.registry import init_default_scope
    from prettytable import PrettyTable
    from rich.progress import track

    from mmseg_encstdc.compat import quiet
    from mmseg_encstdc.engine import check_config, check_writable, load_config
    from mmseg_encstdc.engine.checks.data import shared_images
    from mmseg_encstdc.engine.data_report import LoaderReport, read_loader
    from mmseg_encstdc.errors import InputError, as_input_error, one_line_errors
except ImportError as error:
    sys.exit(f'error: {error}')

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    parser.add_argument('--workers', type=int, default=cores(),
                        help='number of processes; default: the number of cores')
    parser.add_argument('--out', metavar='FILE.json', help='report to write, as JSON')
    return parser.parse_args()


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_all(cfg: Config, workers: int) -> Dict[str, LoaderReport]:
    """Read the data loaders; one with the data set of another is not read again."""
    reports = {}
    for loader in filter(cfg.get, LOADERS):
        same = next((other for other in reports
                     if cfg[other].dataset == cfg[loader].dataset), None)
        reports[loader] = reports[same] if same else read_loader(
            cfg, loader, workers, progress)
        show(loader, same, reports[loader])
    return reports


def progress(steps: Iterable, description: str, total: int) -> Iterable:
    """Show a progress bar."""
    return track(steps, description=description, total=total)


def show(loader: str, same: str, report: LoaderReport) -> None:
    """Print the shares of the classes, if any were counted."""
    if same:
        print(f'{loader}: the same files as {same}')
        return
    labelled = report.counts.total or report.class_images
    state = (', with the faults below' if report.faults else
             ' and labels are sound' if labelled else ' are sound; they have no labels')
    print(f'{loader}, {" and ".join(report.types)}: {len(report.paths)} images{state}')
    if not any(share for _, share in report.shares()):
        return
    unit = 'images' if report.class_images else 'pixels'
    table = PrettyTable(['class', f'percent of all {unit}'])
    for name, share in report.shares():
        table.add_row([name, f'{100 * share:.2f}'])
    print(table)


def finish(reports: Dict[str, LoaderReport], out: str) -> int:
    """Write the report, print all warnings and faults; return the exit status."""
    shared = shared_images({loader: set(report.paths)
                            for loader, report in reports.items()})
    distinct = {id(report): report for report in reports.values()}.values()
    if out:
        content = dict(loaders={key: one.as_dict() for key, one in reports.items()},
                       warnings=shared)
        with as_input_error(f'--out {out}', (OSError, )):
            Path(out).write_text(json.dumps(content, indent=1) + '\n')
    for line in [line for one in distinct for line in one.warnings] + shared:
        print(f'warning: {line}', file=sys.stderr)
    faults = [line for one in distinct for line in one.lines()]
    for line in faults:
        print(f'error: {line}', file=sys.stderr)
    return int(bool(faults))


def main() -> None:
    args = parse_args()
    with one_line_errors(), quiet():
        if args.workers < 1:
            raise InputError(f'--workers must be at least 1, got {args.workers}')
        if args.out:
            check_writable(os.path.dirname(args.out) or '.')
        cfg = load_config(args.config, args.cfg_options, loader=None)
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        check_config(cfg, [loader for loader in LOADERS if cfg.get(loader)])
        sys.exit(finish(read_all(cfg, args.workers), args.out))


if __name__ == '__main__':
    main()
