"""Prepare and check a run of MMEngine's runner."""
from .bad_losses import StopAtBadLoss
from .checkpoints import check_fits, read_checkpoint
from .checks import (
    check_config,
    check_data,
    check_trained_classes,
    input_format,
    try_run,
    try_training,
)
from .config_errors import naming
from .configs import build_runner, datasets_of, load_config, raw_ids_of, use_mode
from .hooks import ForgetForeignBest, SelectFitting
from .launch import (
    CPUDistributedDataParallel,
    check_writable,
    prepare_run,
    start_processes,
    stop_processes,
)
from .reproducer import replay
from .schedules import ExponentialWarmup, stretch_schedule
from .signals import StopAtSignal, StopSignals

__all__ = [
    'CPUDistributedDataParallel', 'ExponentialWarmup', 'ForgetForeignBest',
    'SelectFitting', 'StopAtBadLoss', 'StopAtSignal', 'StopSignals', 'build_runner',
    'check_config', 'check_data', 'check_fits', 'check_trained_classes',
    'check_writable', 'datasets_of', 'input_format', 'load_config', 'naming',
    'prepare_run', 'raw_ids_of', 'read_checkpoint', 'replay', 'start_processes',
    'stop_processes', 'stretch_schedule', 'try_run', 'try_training', 'use_mode'
]
