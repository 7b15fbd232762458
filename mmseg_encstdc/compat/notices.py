"""Suppress output and warnings of the libraries that do not concern the user."""
import contextlib
import io
import logging
import warnings
from typing import Iterator

__all__ = ['quiet', 'without_notices']

# The fork prints this when it is imported, meant for a log at level DEBUG.
NOTICES = ('Could not import OneDL', )
# Warnings of sizes that align_corners=True, which is intended, does not align; of
# mmseg's own calls; of a visualization hook that does not draw; the advice to give two
# classes one channel, which is no better.
WARNINGS = ('When align_corners=True', '``build_loss`` would be deprecated',
         'The draw is False', 'For binary segmentation, we suggest')


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
    """Remove the lines of :data:`NOTICES` from the output."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            if line not in NOTICES:
                print(line)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warnings of :data:`WARNINGS`, and tracebacks of log handlers.

    A handler prints one for each line that it cannot write, as on a full disk; the
    next file that cannot be written ends the program with one line.
    """
    logging.raiseExceptions = False
    with warnings.catch_warnings():
        for message in WARNINGS:
            warnings.filterwarnings('ignore', message)
        yield
