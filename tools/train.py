#!/usr/bin/env python
"""Train a network: tools/train.py configs/encnet_r101_ade.py"""
import argparse
import sys
from pathlib import Path
from typing import List, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
try:
    from mmengine.config import Config

    from mmseg_encstdc.cli import add_common_arguments, read_run_config
    from mmseg_encstdc.compat import quiet, say_once
    from mmseg_encstdc.engine import (
        SelectFitting,
        State,
        StopAtBadLoss,
        StopAtSignal,
        StopSignals,
        build_runner,
        check_fits,
        check_layout,
        check_resumable,
        differences,
        find_state,
        is_finished,
        load_config,
        naming,
        prepare_run,
        read_checkpoint,
        replay,
        stop_processes,
        stretch_schedule,
        try_training,
        use_amp,
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
        help='continue from a checkpoint; without a file, from the newest one in '
        'the work dir')
    parser.add_argument(
        '--resume-with-config', action='store_true',
        help='with --resume: take the settings of the optimizer, such as the learning '
        'rate, from the config, not from the checkpoint')
    parser.add_argument(
        '--amp', action='store_true',
        help='mixed precision: float16 on a GPU, bfloat16 on a CPU that has it')
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
        stretch_schedule(cfg, args.max_iters, args.cfg_options or ())
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise InputError('--auto-scale-lr needs '
                             'auto_scale_lr.base_batch_size in the config')
        cfg.auto_scale_lr.enable = True


def replay_step(args: argparse.Namespace) -> None:
    """Repeat the step of a bad loss."""
    cfg = load_config(args.config, args.cfg_options, 'train_dataloader')
    if args.amp:
        use_amp(cfg)
    print('\n'.join(replay(cfg, args.replay)))


def train(args: argparse.Namespace, signals: StopSignals) -> None:
    """Train the config's network, from a checkpoint with ``--resume``."""
    cfg = read_run_config(args)
    signals.work_dir = cfg.work_dir
    check_layout(cfg, ['train', 'val'])
    state = find_state(cfg, args.resume)
    if state and is_finished(cfg, state, args.max_iters):
        say_once(f'{state.path} is the end of this training: nothing is left to do')
        return
    cfg.resume = False  # the runner is told the file
    prepare_run(cfg, ['train_dataloader', 'val_dataloader'], args.launcher,
                training=True, keep_folder=not args.dry_run)
    with naming(cfg, 'config'):
        apply_options(args, cfg)
    if not state and cfg.get('load_from') and '://' not in cfg.load_from:
        read_checkpoint(cfg.load_from, 'load_from', bare=True)
    changes = []
    if state and state.content:
        check_resumable(cfg, state)
        changes = differences(cfg, state, args.resume_with_config)
    tried = try_training(cfg)
    if args.dry_run:
        print(f'{args.config} is sound: {tried}')
        return
    run(cfg, state, signals, args.resume_with_config, changes)


def run(cfg: Config, state: Optional[State], signals: StopSignals, with_config: bool,
        changes: List[str]) -> None:
    """Build the runner and train, from a state or the config's ``load_from``."""
    runner = build_runner(cfg)
    runner.register_hook(StopAtSignal(signals))
    with naming(cfg, 'bad_losses'):
        runner.register_hook(StopAtBadLoss(**(cfg.get('bad_losses') or {})))
    if state:
        if state.content:
            check_fits(runner.model, state.path, state.content['state_dict'])
            state.content.clear()
        runner.continue_from(state.path, with_config, changes)
    elif cfg.get('load_from'):
        runner.register_hook(SelectFitting())
    runner.train()


def main() -> None:
    args = parse_args()
    with one_line_errors(), quiet():
        with StopSignals() as signals:
            if args.replay:
                replay_step(args)
            else:
                train(args, signals)
        stop_processes()  # after the runner and its model are deleted
    if signals.code:
        sys.exit(signals.code)


if __name__ == '__main__':
    main()
