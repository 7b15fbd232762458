"""Around MMEngine's runner: launching, schedules, checks before training."""
from . import cli
from .checks import check_config, check_data
from .distributed import (
    CPUDistributedDataParallel,
    start_processes,
    stop_processes,
)
from .hooks import ForgetForeignBest
from .schedules import ExponentialWarmup, stretch_schedule

__all__ = [
    'CPUDistributedDataParallel', 'ExponentialWarmup', 'ForgetForeignBest',
    'check_config', 'check_data', 'cli', 'start_processes', 'stop_processes',
    'stretch_schedule'
]
