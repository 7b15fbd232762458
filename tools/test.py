#!/usr/bin/env python
"""Evaluate a checkpoint: tools/test.py CONFIG CHECKPOINT [--tta]"""
import argparse
import sys
from pathlib import Path
from typing import List, Optional, Union

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    from mmengine.config import Config

    from mmseg_encstdc.cli import add_common_arguments, load_run_config
    from mmseg_encstdc.compat import quiet
    from mmseg_encstdc.engine import (
        build_runner,
        check_fits,
        check_trained_classes,
        check_writable,
        input_format,
        naming,
        raw_ids_of,
        read_checkpoint,
        stop_processes,
        try_run,
        use_mode,
    )
    from mmseg_encstdc.engine.checks.data import list_samples
    from mmseg_encstdc.engine.configs import datasets_of
    from mmseg_encstdc.errors import InputError, one_line_errors
except ImportError as error:
    sys.exit(f'error: {error}')


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
        '--out', help='folder for predicted label maps (8-bit class ids) and '
        'metrics.json')
    parser.add_argument(
        '--raw-ids', action='store_true',
        help="write the ids of the data set's label files, not class ids")
    parser.add_argument(
        '--show-dir', help='folder for images overlaid with label and '
        'prediction')
    return parser.parse_args()


def apply_options(args: argparse.Namespace, cfg: Config) -> None:
    """Write the options of this tool into the config."""
    meta = read_checkpoint(args.checkpoint)['meta']
    check_trained_classes(cfg, meta, args.checkpoint)
    cfg.load_from = args.checkpoint
    if args.mode:
        use_mode(cfg, args.mode)
    if args.tta:
        if 'tta_pipeline' not in cfg:
            raise InputError('--tta needs tta_pipeline in the config')
        if cfg.model.test_cfg.get('mode') == 'chip':
            raise InputError(
                '--tta averages probabilities, which the scores of '
                'model.test_cfg.mode chip are not; add --cfg-options '
                'model.test_cfg.mode=whole')
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        wrapper = cfg.get('tta_model', dict(type='SegTTAModel'))
        cfg.model = dict(**wrapper, module=cfg.model)
    for folder in filter(None, (args.out, args.show_dir)):
        check_writable(folder)
    if args.out:
        if 'decode_head' not in cfg.model.get('module', cfg.model):
            raise InputError('--out needs a segmentation network; a classifier writes '
                             'no label maps')
        check_names(cfg, 'stem')
        ids = raw_ids_of(cfg).tolist() if args.raw_ids else None
        cfg.test_evaluator = writing(cfg.test_evaluator, args.out, ids)
    elif args.raw_ids:
        raise InputError('--raw-ids needs --out, the folder to write to')
    if args.show_dir:
        if 'visualization' not in (cfg.get('default_hooks') or {}) or not cfg.get(
                'visualizer'):
            raise InputError('--show-dir needs default_hooks.visualization and '
                             'visualizer in the config')
        check_shows(cfg)
        check_names(cfg, 'name')
        cfg.default_hooks.visualization.update(draw=True, interval=1)
        cfg.visualizer.save_dir = args.show_dir


def check_names(cfg: Config, part: str) -> None:
    """Raise InputError if two images of the test set would be written to one file.

    Args:
        cfg: a whole experiment.
        part: of the path that names the file: 'stem' or 'name'.
    """
    seen = {}
    for dataset in datasets_of(cfg.test_dataloader.dataset):
        for sample in list_samples(cfg, dataset, 'test_dataloader')[1]:
            path = Path(sample['img_path'])
            first = seen.setdefault(getattr(path, part), path)
            if first != path:
                raise InputError(f'{first} and {path} would be written to one file; '
                                 'give data_prefix of test_dataloader.dataset one of '
                                 'their folders at a time, or use tools/predict.py')


def writing(evaluator: Union[dict, List[dict]], folder: str,
            raw_ids: Optional[List[int]]) -> List[dict]:
    """Return the metrics of an evaluator, one of which writes label maps.

    MMSegmentation's metrics write the ids of the label files for some data sets, so
    they are not used for it.
    """
    metrics = [evaluator] if isinstance(evaluator, dict) else list(evaluator)
    options = dict(output_dir=folder, raw_ids=raw_ids)
    for metric in metrics:
        if metric['type'] == 'ConfusionMetric':
            metric.update(options)
            return metrics
    return [*metrics,
            dict(type='ConfusionMetric', format_only=True, **options)]


def check_shows(cfg: Config) -> None:
    """Raise InputError for files that MMSegmentation's visualizer cannot read."""
    bands, dtype = input_format(cfg)
    if bands not in (1, 3) or dtype not in (None, 'uint8', 'uint16'):
        raise InputError(f'--show-dir draws on images of 1 or 3 bands of 8 or 16 bits, '
                         f'the config reads {bands} bands of {dtype}; leave it out, '
                         'tools/predict.py draws on them')


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
