"""Around MMEngine's runner: launching, schedules, checks before training."""
from . import cli
from .checks import check_config, check_data
from .distributed import CPUDistributedDataParallel, start_processes
from .schedules import ExponentialWarmup, stretch_schedule

__all__ = [
    'CPUDistributedDataParallel', 'ExponentialWarmup', 'check_config',
    'check_data', 'cli', 'start_processes', 'stretch_schedule'
]
