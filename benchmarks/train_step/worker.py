"""A contender in a process of its own: python -m train_step.worker.

It reads lines: first what to build, as JSON, then the commands of a
:class:`Player`. Each is answered by a line of JSON; see :func:`answer`.
"""
import contextlib
import json
import os
import sys
from pathlib import Path


def main() -> None:
    # Nothing that a library prints may get between the answers.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), 'w')
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from .player import COMMANDS, Player, answer  # which prints, too
    # Where memory runs out, this process goes, not the one that measures.
    with contextlib.suppress(OSError):
        Path('/proc/self/oom_score_adj').write_text('1000')

    def reply(to: dict) -> None:
        print(json.dumps(to), file=replies, flush=True)

    built = answer(Player, **json.loads(sys.stdin.readline()))
    player = built.pop('value', None)
    reply(built)
    for line in sys.stdin if player else ():
        command = line.strip()
        if command not in COMMANDS:
            raise ValueError(f'{command!r} is none of {COMMANDS}')
        reply(answer(getattr(player, command)))


if __name__ == '__main__':
    main()
