"""End a process with the one that started it."""
import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time

__all__ = ['end_with_parent', 'guard_workers', 'kill_workers']

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGUSR1')
    if hasattr(signal, name))
SECONDS = 1  # between two looks at the parent, where the system does not tell
PR_SET_PDEATHSIG = 1  # of Linux's prctl


@functools.lru_cache(None)
def _prctl() -> object:
    """Return Linux's prctl; None on other systems."""
    return ctypes.CDLL(None).prctl if sys.platform == 'linux' else None


def end_with_parent(number: int, parent: int) -> None:
    """Send this process a signal when its parent ends, or now if it has ended.

    Linux does this itself; elsewhere a thread looks for a new parent.

    Args:
        number: of the signal.
        parent: process id of the parent.
    """
    if _prctl():
        _prctl()(PR_SET_PDEATHSIG, number)
    else:
        threading.Thread(target=_watch, args=(number, parent), daemon=True).start()
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def _watch(number: int, parent: int) -> None:
    """Send this process a signal once it has another parent."""
    while os.getppid() == parent:
        time.sleep(SECONDS)
    os.kill(os.getpid(), number)


def guard_workers(guard: bool) -> None:
    """Let data workers end with this process, and leave signals to it.

    A signal for a job reaches all of its processes. A worker that ended at once would
    take the batches with it that the last step needs. Workers that are started later
    obey the last call.
    """
    global _guard
    _guard = guard
    _register()


_guard = False


@functools.lru_cache(None)
def _register() -> None:
    """Run :func:`_guard_worker` in every process that is forked from now on."""
    if hasattr(os, 'register_at_fork'):
        _prctl()
        parents = []  # the child's own getppid() may be a later parent
        os.register_at_fork(before=lambda: parents.append(os.getpid()),
                            after_in_parent=parents.pop,
                            after_in_child=lambda: _guard_worker(parents.pop()))


def _guard_worker(parent: int) -> None:
    """Do in a new worker what :func:`guard_workers` describes."""
    if not _guard:
        return
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    end_with_parent(signal.SIGKILL, parent)


def kill_workers() -> None:
    """End the data workers of this process; they do not listen to SIGTERM."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would raise
    for child in multiprocessing.active_children():
        child.kill()
