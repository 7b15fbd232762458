#!/usr/bin/env python
"""Start several processes of a script on this machine: dist_run.py N SCRIPT [ARGS ...]

tools/dist_train.sh and tools/dist_test.sh call it. As torch.distributed.run, it sets
RANK, WORLD_SIZE and the other variables of PyTorch. Unlike it, it passes each signal on
once, waits as long as a rank needs to save, and says in one line which rank ended.
Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT; see docs/environment.md.
"""
import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Dict, List, Optional

GRACE = 5.0  # seconds that the other ranks have once one has failed
LOST = 75  # exit code of a rank that lost another one; as mmseg_encstdc.errors


def main() -> int:
    """Run the script until all ranks have ended; return the exit code."""
    count, script = int(sys.argv[1]), sys.argv[2:]
    node, nodes = (int(os.environ.get(name) or default)
                   for name, default in (('NODE_RANK', 0), ('NNODES', 1)))
    address = os.environ.get('MASTER_ADDR') or '127.0.0.1'
    port = os.environ.get('PORT') or '29500'
    if not port.isdigit():
        sys.exit(f'error: PORT is {port}; give a number, such as 29500')
    if node == 0:
        check_port(int(port))
    ranks: Dict[int, subprocess.Popen] = {}

    def forward(number: int, frame: object) -> None:
        for process in ranks.values():
            process.send_signal(number)

    with tempfile.TemporaryDirectory() as folder:
        environment = dict(
            os.environ, MASTER_ADDR=address, MASTER_PORT=port,
            WORLD_SIZE=str(count * nodes), LOCAL_WORLD_SIZE=str(count),
            MMSEG_ENCSTDC_LAUNCHER=f'{os.getpid()}:{folder}')
        environment.setdefault('OMP_NUM_THREADS', '1')
        environment.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')  # else stacks of C++
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, forward)
        for local in range(count):
            rank = node * count + local
            ranks[rank] = subprocess.Popen(
                [sys.executable, *script],
                env=dict(environment, RANK=str(rank), LOCAL_RANK=str(local)))
        codes = wait(ranks)
        reported = os.path.exists(os.path.join(folder, 'reported'))
    return report(codes, reported)


def check_port(port: int) -> None:
    """End with one line if another program listens at the port."""
    with socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            ours.bind(('', port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            with socket.socket() as free:
                free.bind(('', 0))
                sys.exit(f'error: port {port} is taken, perhaps by another training; '
                         f'set PORT to a free one, such as {free.getsockname()[1]}')


def wait(ranks: Dict[int, subprocess.Popen]) -> Dict[int, Optional[int]]:
    """Wait until all ranks have ended, and end them soon after one has failed.

    Returns:
        The exit codes, in the order of the ends; None for ranks that this function
        has ended.
    """
    codes, end = {}, None
    while len(codes) < len(ranks):
        for rank, process in ranks.items():
            if rank not in codes and process.poll() is not None:
                codes[rank] = process.returncode
                if process.returncode and end is None:
                    end = time.monotonic() + GRACE
        if end is not None and time.monotonic() > end:
            for rank, process in ranks.items():
                if rank not in codes:
                    process.kill()
                    process.wait()
                    codes[rank] = None
        time.sleep(0.05)
    return codes


def report(codes: Dict[int, Optional[int]], reported: bool) -> int:
    """Print which rank was killed, if one was, and return the exit code for all.

    Args:
        codes: of the ranks, in the order of their ends.
        reported: whether a rank has said itself what failed.
    """
    failed: List[int] = [rank for rank, code in codes.items() if code]
    if not failed:
        return 0
    rank = next((rank for rank in failed if codes[rank] != LOST), failed[0])
    code = codes[rank]
    if reported:
        pass
    elif code == LOST:
        print(f'error: rank {rank} lost a rank of another machine; see the output '
              'there', file=sys.stderr)
    elif code < 0:
        name = signal.Signals(-code).name
        cause = ', as the system does when memory runs out' if name == 'SIGKILL' else ''
        print(f'error: rank {rank} was ended by {name}{cause}; the others were ended '
              'too; a training goes on with the same command and --resume',
              file=sys.stderr)
    return code if code > 0 else 128 - code


if __name__ == '__main__':
    sys.exit(main())
