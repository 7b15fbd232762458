#!/usr/bin/env python
"""Train a network: tools/train.py configs/encnet_r101_ade.py"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    import torch
    from mmengine.config import Config
    from mmengine.runner import find_latest_checkpoint

    from mmseg_encstdc.cli import add_common_arguments, load_run_config
    from mmseg_encstdc.compat import quiet
    from mmseg_encstdc.engine import (
        ForgetForeignBest,
        SelectFitting,
        StopAtBadLoss,
        StopAtSignal,
        StopSignals,
        build_runner,
        check_fits,
        load_config,
        naming,
        read_checkpoint,
        replay,
        stop_processes,
        stretch_schedule,
        try_training,
    )
    from mmseg_encstdc.errors import InputError, one_line_errors
except ImportError as error:
    sys.exit(f'error: {error}')
except KeyboardInterrupt:  # importing takes seconds
    sys.exit(130)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='CHECKPOINT',
        help='continue from a checkpoint; without a file, from the last one in '
        'the work dir')
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision (GPU)')
    parser.add_argument(
        '--auto-scale-lr', action='store_true',
        help='scale the learning rate to the batch size of all processes')
    parser.add_argument(
        '--max-iters', type=int,
        help='length of a schedule in iterations; warm-up, decay and intervals '
        'scale with it')
    parser.add_argument(
        '--dry-run', action='store_true',
        help='check config and data, try one batch of each set, and stop')
    parser.add_argument(
        '--replay', metavar='FILE',
        help='repeat the step of a bad loss, bad_loss_iter_N.pth of a work dir, and '
        'print what is not finite')
    return parser.parse_args()


def apply_options(args: argparse.Namespace, cfg: Config) -> None:
    """Write the options of this tool into the config."""
    if args.max_iters is not None:
        stretch_schedule(cfg, args.max_iters)
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise InputError('--auto-scale-lr needs '
                             'auto_scale_lr.base_batch_size in the config')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        if args.resume != 'auto':
            cfg.load_from = args.resume
    if cfg.get('load_from') and '://' not in cfg.load_from:
        read_checkpoint(cfg.load_from, 'load_from', bare=not args.resume)


def use_amp(cfg: Config) -> None:
    """Set the config's optimizer wrapper to mixed precision, which needs a GPU."""
    if not torch.cuda.is_available():
        raise InputError('--amp needs a GPU; leave it out on CPU')
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise InputError(f'--amp works with optim_wrapper.type OptimWrapper, '
                         f'the config has {wrapper}')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def train(args: argparse.Namespace, signals: StopSignals) -> None:
    """Train the config's network, from a checkpoint with ``--resume``."""
    if args.replay:
        cfg = load_config(args.config, args.cfg_options, 'train_dataloader')
        print('\n'.join(replay(cfg, args.replay)))
        return
    cfg = load_run_config(
        args, ['train_dataloader', 'val_dataloader'], training=True, dry=args.dry_run)
    with naming(cfg, 'config'):
        apply_options(args, cfg)
    signals.work_dir = cfg.work_dir
    tried = try_training(cfg)
    if args.dry_run:
        print(f'{args.config} is sound: {tried}')
        return
    runner = build_runner(cfg)
    runner.register_hook(StopAtSignal(signals))
    with naming(cfg, 'bad_losses'):
        runner.register_hook(StopAtBadLoss(**(cfg.get('bad_losses') or {})))
    if args.resume:
        path = cfg.load_from or find_latest_checkpoint(cfg.work_dir)
        if path:
            check_fits(runner.model, path)
        runner.register_hook(ForgetForeignBest())
    elif cfg.get('load_from') and not cfg.get('resume'):
        runner.register_hook(SelectFitting())
    runner.train()


def main() -> None:
    args = parse_args()
    with one_line_errors(), quiet():
        with StopSignals() as signals:
            train(args, signals)
        stop_processes()  # after the runner and its model are deleted
    sys.exit(signals.code)


if __name__ == '__main__':
    main()
