"""Say where an interrupted training can go on."""
import os
import sys
from contextlib import contextmanager
from typing import Iterator

__all__ = ['naming_checkpoint']


@contextmanager
def naming_checkpoint(work_dir: str) -> Iterator[None]:
    """End with exit code 130 and one line of the last checkpoint at Ctrl-C.

    Args:
        work_dir: where the training writes its checkpoints.
    """
    try:
        yield
    except KeyboardInterrupt:
        if os.environ.get('RANK', '0') == '0':
            print(_line(work_dir), file=sys.stderr)
        sys.exit(130)


def _line(work_dir: str) -> str:
    """Return what there is to resume from."""
    note = os.path.join(work_dir, 'last_checkpoint')  # CheckpointHook writes it
    try:
        with open(note) as file:
            path = file.read().strip()
    except OSError:
        return f'interrupted; {work_dir} has no checkpoint yet, so start again'
    return (f'interrupted; the last checkpoint is {path}, continue from it with the '
            'same command and --resume')
