"""End a process when another one of its run does not answer any more."""
import os
import threading
import time
from datetime import timedelta

import torch.distributed as dist

from ..errors import LAUNCHER, LOST, first_to_report
from .processes import kill_workers

__all__ = ['stop_watching', 'watch_ranks']

BEAT = 5.0  # seconds between two signs of life
SILENCE = 40.0  # seconds without one, after which a process counts as lost
SILENT = ('has not answered for {:.0f} s: its process or machine is stopped or cut '
          'off')
KEY = 'mmseg_encstdc/'  # of entries in PyTorch's store

_stopped = threading.Event()
_stopped.set()


def watch_ranks() -> None:
    """Send signs of life to the other processes, and watch the next one's.

    A thread sends them, so a process that computes, validates or writes for long stays
    alive, unlike one that is stopped, or whose machine is. The first process keeps the
    store. Nothing is watched in one process, or when called again.
    """
    if not (dist.is_initialized() and dist.get_world_size() > 1 and _stopped.is_set()):
        return
    try:
        store = dist.TCPStore(
            os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']), None, False,
            timedelta(seconds=SILENCE))
    except (KeyError, ValueError, RuntimeError):
        return  # the group was not made from the environment
    _stopped.clear()
    answered = [time.monotonic()]
    for work in (_beat, _judge):
        threading.Thread(target=work, args=(store, answered), daemon=True).start()


def stop_watching() -> None:
    """Let the other processes end from now on."""
    _stopped.set()


def _beat(store: dist.Store, answered: list) -> None:
    """Tell that this process lives, and look whether the next one does."""
    rank, size = dist.get_rank(), dist.get_world_size()
    beaten, count, last = (rank + 1) % size, 0, (None, time.monotonic())
    try:
        while not _stopped.is_set():
            count += 1
            store.set(f'{KEY}{rank}', str(count))
            found = store.get(f'{KEY}{beaten}') if store.check(
                [f'{KEY}{beaten}']) else None
            answered[0] = time.monotonic()
            if found != last[0]:
                last = found, answered[0]
            elif answered[0] - last[1] > SILENCE:
                store.set(f'{KEY}lost', str(beaten))
            if store.check([f'{KEY}lost']):
                time.sleep(BEAT)  # until all have read it
                _end(int(store.get(f'{KEY}lost')), SILENT)
            _stopped.wait(BEAT)
    except RuntimeError:
        time.sleep(1)  # the first process may have ended as it should
        _end(0, 'has ended')


def _judge(store: dist.Store, answered: list) -> None:
    """End this process if the store, in the first one, does not answer."""
    while not _stopped.wait(BEAT):
        if time.monotonic() - answered[0] > SILENCE:
            _end(0, SILENT)


def _end(rank: int, what: str) -> None:
    """End this process at once, because another one is lost.

    The launcher names a rank that has ended, with the cause.
    """
    if _stopped.is_set() or not dist.is_initialized():
        return
    if (what == SILENT or LAUNCHER not in os.environ) and first_to_report():
        line = (f'error: rank {rank} {what.format(SILENCE)}; the others end; a '
                'training goes on with the same command and --resume\n')
        os.write(2, line.encode())
    kill_workers()
    os._exit(LOST)
