#!/usr/bin/env python
"""Evaluate a checkpoint: tools/test.py CONFIG CHECKPOINT [--tta]"""
import argparse
import sys
from pathlib import Path
from typing import List, Union

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    from mmengine.config import Config

    from mmseg_encstdc.cli import add_common_arguments, load_run_config
    from mmseg_encstdc.compat import quiet
    from mmseg_encstdc.engine import (
        build_runner,
        check_fits,
        check_writable,
        naming,
        read_checkpoint,
        stop_processes,
        try_run,
        use_mode,
    )
    from mmseg_encstdc.errors import InputError, one_line_errors
except ImportError as error:
    sys.exit(f'error: {error}')

WRITERS = ('ConfusionMetric', 'IoUMetric', 'CityscapesMetric')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        '--tta', action='store_true',
        help='average the probabilities of all scales and flips')
    mode.add_argument(
        '--mode', help='one of test_modes of the config: chip (the authors\' '
        'overlapping crops at several scales) or slide')
    parser.add_argument(
        '--out', help='folder for predicted label maps and metrics.json')
    parser.add_argument(
        '--show-dir', help='folder for images overlaid with label and '
        'prediction')
    return parser.parse_args()


def apply_options(args: argparse.Namespace, cfg: Config) -> None:
    """Write the options of this tool into the config."""
    read_checkpoint(args.checkpoint)
    cfg.load_from = args.checkpoint
    if args.mode:
        use_mode(cfg, args.mode)
    if args.tta:
        if 'tta_pipeline' not in cfg:
            raise InputError('--tta needs tta_pipeline in the config')
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = dict(**cfg.tta_model, module=cfg.model)
    for folder in filter(None, (args.out, args.show_dir)):
        check_writable(folder)
    if args.out:
        write_predictions(cfg.test_evaluator, args.out)
    if args.show_dir:
        if 'visualization' not in (cfg.get('default_hooks') or {}) or not cfg.get(
                'visualizer'):
            raise InputError('--show-dir needs default_hooks.visualization and '
                             'visualizer in the config')
        cfg.default_hooks.visualization.update(draw=True, interval=1)
        cfg.visualizer.save_dir = args.show_dir


def write_predictions(evaluator: Union[dict, List[dict]], folder: str) -> None:
    """Set the output folder of the metrics that write label maps."""
    metrics = [evaluator] if isinstance(evaluator, dict) else evaluator
    writers = [m for m in metrics if m['type'] in WRITERS]
    if not writers:
        raise InputError(f'--out needs one of {", ".join(WRITERS)} in '
                         'test_evaluator')
    for metric in writers:
        metric['output_dir'] = folder


def test(args: argparse.Namespace) -> None:
    """Evaluate the checkpoint on the config's test set."""
    cfg = load_run_config(args, ['test_dataloader'])
    with naming(cfg, 'config'):
        apply_options(args, cfg)
    try_run(cfg, ['test'])
    runner = build_runner(cfg, training=False)
    check_fits(runner.model, args.checkpoint)
    runner.test()


def main() -> None:
    args = parse_args()
    with one_line_errors(), quiet():
        test(args)
        stop_processes()  # after the runner and its model are deleted


if __name__ == '__main__':
    main()
