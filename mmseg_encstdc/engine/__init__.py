"""Prepare and check a run of MMEngine's runner."""
from .bad_images import CountBadImages
from .bad_losses import StopAtBadLoss
from .checkpoints import check_fits, read_checkpoint
from .checks import (
    check_config,
    check_data,
    check_layout,
    check_trained_classes,
    input_format,
    try_run,
    try_training,
)
from .config_errors import naming
from .configs import build_runner, datasets_of, load_config, raw_ids_of, use_mode
from .hooks import ChannelsLast, SelectFitting
from .launch import (
    CPUDistributedDataParallel,
    check_writable,
    prepare_run,
    start_processes,
    stop_processes,
)
from .mixed_precision import BFloat16OptimWrapper, use_amp
from .reproducer import replay
from .resume import State, find_state, is_finished, newest_checkpoint
from .resume_checks import check_resumable, differences
from .saving import SafeCheckpointHook
from .schedules import ExponentialWarmup, stretch_schedule
from .signals import StopAtSignal, StopSignals

__all__ = [
    'BFloat16OptimWrapper', 'CPUDistributedDataParallel', 'ChannelsLast',
    'CountBadImages', 'ExponentialWarmup',
    'SafeCheckpointHook', 'SelectFitting', 'State', 'StopAtBadLoss', 'StopAtSignal',
    'StopSignals', 'build_runner', 'check_config', 'check_data', 'check_fits',
    'check_layout', 'check_resumable', 'check_trained_classes', 'check_writable',
    'datasets_of', 'differences', 'find_state', 'input_format', 'is_finished',
    'load_config', 'naming', 'newest_checkpoint', 'prepare_run', 'raw_ids_of',
    'read_checkpoint', 'replay', 'start_processes', 'stop_processes',
    'stretch_schedule', 'try_run', 'try_training', 'use_amp', 'use_mode'
]
