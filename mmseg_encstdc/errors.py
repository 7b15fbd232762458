"""Errors with a one-line message for the user."""
import os
import sys
from contextlib import contextmanager
from typing import Iterator

__all__ = ['ArgumentError', 'InputError', 'as_input_error', 'one_line_errors']


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
        line = (str(error).strip() or repr(error)).splitlines()[-1]
        raise InputError(f'{what}: {type(error).__name__}: {line}') from error


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with the one line of an InputError.

    An error of a data worker arrives as its traceback, whose last line is the
    message. MMSEG_ENCSTDC_TRACEBACK=1 raises the error itself. Ctrl-C ends with exit
    code 130.
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
        sys.exit('error: ' + line.split('InputError: ', 1)[-1])
    # mmcv's image loader raises AssertionError; its message names the file.
    except AssertionError as error:
        if 'failed to load image' not in str(error):
            raise
        line = str(error).strip().splitlines()[-1]
        sys.exit('error: ' + line.split('AssertionError: ', 1)[-1] +
                 '; restore the file or remove it')
