"""Print lines for the user, with or without a runner of MMEngine."""
import functools
import logging
import multiprocessing
import os
import sys

__all__ = ['info', 'say_once', 'warn']


@functools.cache
def say_once(message: str) -> None:
    """Print one INFO line in the main process of rank 0, once for each message.

    MMEngine's logger is not used: if it is made before the rank is known, every
    rank prints from then on.
    """
    first = os.environ.get('RANK', '0') == '0'
    if not first or multiprocessing.current_process().name != 'MainProcess':
        return
    logger = logging.getLogger(__package__.split('.')[0])
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stdout)  # as MMEngine's
        handler.setFormatter(logging.Formatter(
            '%(asctime)s - %(name)s - %(levelname)s - %(message)s', '%m/%d %H:%M:%S'))
        logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    logger.info(message)


def info(message: str) -> None:
    """Print one INFO line in MMEngine's current log, or in Python's before it."""
    from mmengine.logging import print_log
    print_log(message, logger='current', level=logging.INFO)


def warn(message: str) -> None:
    """Print one WARNING line, as :func:`info`."""
    from mmengine.logging import print_log
    print_log(message, logger='current', level=logging.WARNING)
