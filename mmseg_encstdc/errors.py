"""Errors with a one-line message for the user."""
import errno
import os
import re
import sys
import traceback
from contextlib import contextmanager
from typing import Iterator

__all__ = [
    'LAUNCHER', 'LOST', 'ArgumentError', 'InputError', 'as_input_error',
    'first_to_report', 'one_line_errors'
]


class InputError(ValueError):
    """Report a fault in the user's files, data, config or arguments.

    Its message is one line that names the cause and the remedy; the tools print
    only that line.
    """


class ArgumentError(ValueError, AssertionError):
    """Report an invalid argument of a class that replaces one of MMSegmentation's.

    It is an AssertionError too, which MMSegmentation's class raises.
    """


@contextmanager
def as_input_error(what: str, kinds: tuple) -> Iterator[None]:
    """Turn exceptions of other libraries into an InputError.

    Args:
        what: names the file, key or option at fault; the message begins with it.
        kinds: exception types to turn.
    """
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        if _is_full_disk(error):
            raise InputError(_full_disk(error, f'{what}: a file')) from error
        line = (str(error).strip() or repr(error)).splitlines()[-1]
        raise InputError(f'{what}: {type(error).__name__}: {line}') from error


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line for an InputError, a full disk, a lost process.

    An error of a data worker arrives as its traceback, whose last line is the
    message. Of several processes, only the first that fails prints its line; one that
    lost another one ends with the code :data:`LOST`. MMSEG_ENCSTDC_TRACEBACK=1 raises
    the error itself. Ctrl-C ends with exit code 130.
    """
    try:
        yield
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
    except InputError as error:
        if os.environ.get('MMSEG_ENCSTDC_TRACEBACK') == '1':
            raise
        line = str(error).strip().splitlines()[-1]
        _end(line.split('InputError: ', 1)[-1])
    # mmcv's image loader raises AssertionError; its message names the file.
    except AssertionError as error:
        if 'failed to load image' not in str(error):
            raise
        line = str(error).strip().splitlines()[-1]
        _end(line.split('AssertionError: ', 1)[-1] + '; restore the file or remove it')
    except (RuntimeError, OSError, EOFError) as error:
        text = str(error)
        if _is_full_disk(error):
            _end(_full_disk(error))
        if 'DataLoader worker' in text or _receives(error):
            _end(_dead_worker(text))
        if int(os.environ.get('WORLD_SIZE') or 1) > 1 and re.search(LOSSES, text):
            _end_lost(text)
        raise


LOST = 75  # exit code of a process that lost another one; as in tools/dist_run.py
LOSSES = ('Connection closed|Connection reset|Broken pipe|Timed out|[Tt]imeout|gloo|'
          'NCCL|recvValue|remote process')  # in the messages of PyTorch's backends


def _is_full_disk(error: Exception) -> bool:
    """Return whether a file could not be written for lack of room, or for a quota."""
    return getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT)


def _full_disk(error: OSError, unnamed: str = 'a file') -> str:
    """Return the line for a full disk; ``unnamed`` stands for an unknown file."""
    return (f'{error.filename or unnamed} cannot be written: {error.strerror}; free '
            'some space, then continue a training with --resume')


def _end(line: str) -> None:
    """End the program with a line, unless another process has printed one."""
    sys.exit(f'error: {line}' if first_to_report() else 1)


def _receives(error: Exception) -> bool:
    """Return whether PyTorch's data loader failed to receive from a worker."""
    return not isinstance(error, RuntimeError) and any(
        frame.f_code.co_name == '_try_get_data'
        for frame, _ in traceback.walk_tb(error.__traceback__))


def _dead_worker(text: str) -> str:
    """Return the line for PyTorch's message of a data worker that has ended."""
    how = re.search(r'killed by signal: ([\w ]+)|exited unexpectedly', text)
    return ('a data worker was ended' + (f' ({how[1]})' if how and how[1] else '') +
            ', as the system does when memory or shared memory runs out; lower '
            'num_workers of the data loaders or batch_size, or give more of it '
            '(/dev/shm; docker run --shm-size)')


def _end_lost(text: str) -> None:
    """End a process that waits for another one; its launcher says for which."""
    rank = os.environ.get('RANK', '?')
    late = re.search(r'Timed out waiting (\d+)ms|Timeout\(ms\)=(\d+)', text)
    if late:
        seconds = int(late[1] or late[2]) / 1000
        line = (f'rank {rank} waited {seconds:g} s for another one, the limit of '
                'env_cfg.dist_cfg.timeout; raise it if one process needs longer')
    else:
        line = f'rank {rank} lost the connection to another one, which has ended'
    if (late or LAUNCHER not in os.environ) and first_to_report():
        print(f'error: {line}', file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(LOST)  # the backend's threads would abort


LAUNCHER = 'MMSEG_ENCSTDC_LAUNCHER'  # process id and folder, from tools/dist_run.py


def first_to_report() -> bool:
    """Return whether no other process of this machine's run has printed its error."""
    folder = os.environ.get(LAUNCHER, '').partition(':')[2]
    if not folder:
        return True
    try:
        os.close(os.open(os.path.join(folder, 'reported'), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    except OSError:
        return True  # the launcher has ended
    return True
