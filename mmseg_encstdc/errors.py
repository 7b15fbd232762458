"""Errors with a message for the user."""
import os
import sys
from contextlib import contextmanager
from typing import Iterator

__all__ = ['ArgumentError', 'InputError', 'as_input_error', 'one_line_errors']


class InputError(ValueError):
    """Data or configuration at fault.

    Its message is one line that names the cause and the remedy; the tools
    print that line alone.
    """


class ArgumentError(ValueError, AssertionError):
    """An argument of a class that stands in for one of MMSegmentation's.

    That raises AssertionError in the same place, so who catches it still does.
    """


@contextmanager
def as_input_error(what: str, kinds: tuple) -> Iterator[None]:
    """Turn errors of other libraries into one line about the input."""
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        line = (str(error).strip() or repr(error)).splitlines()[-1]
        raise InputError(f'{what}: {type(error).__name__}: {line}') from error


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line for errors that the user can mend.

    An error from a data worker arrives as the worker's whole traceback; its
    last line is the message. MMSEG_ENCSTDC_TRACEBACK=1 shows where an error
    came from.
    """
    try:
        yield
    except InputError as error:
        if os.environ.get('MMSEG_ENCSTDC_TRACEBACK') == '1':
            raise
        line = str(error).strip().splitlines()[-1]
        sys.exit('error: ' + line.split('InputError: ', 1)[-1])
    # Here and not in compat: mmcv's loader names the file, and all there is to do
    # is to print it.
    except AssertionError as error:
        if 'failed to load image' not in str(error):
            raise
        line = str(error).strip().splitlines()[-1]
        sys.exit('error: ' + line.split('AssertionError: ', 1)[-1] +
                 '; restore the file or remove it')
