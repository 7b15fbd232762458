"""Leave out what the libraries print or warn of and a user need not know."""
import contextlib
import io
import warnings
from typing import Iterator

__all__ = ['quiet', 'without_notices']

# What the fork prints at level DEBUG when it is imported, for want of a logger.
NOTICES = ('Could not import OneDL', )
# Warnings that ask nothing of the user: of sizes that align_corners=True, which
# is meant, does not align; of mmseg's own calls; of pictures nobody asked for.
NOISE = ('When align_corners=True', '``build_loss`` would be deprecated',
         'The draw is False')


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
    """Leave :data:`NOTICES` out of what is printed."""
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
    """Leave out the warnings of :data:`NOISE`."""
    with warnings.catch_warnings():
        for message in NOISE:
            warnings.filterwarnings('ignore', message)
        yield
