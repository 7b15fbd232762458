#!/usr/bin/env python
"""Kill trainings at random moments, and see whether --resume repeats the whole run.

dev/kill_runs.py --kills 100 writes benchmarks/results/kill_runs.json. A small network
with dropout trains on the CPU with 2 data workers; it validates, and saves at every
iteration. Each run is killed (SIGKILL) and resumed until it ends; half of the kills
come while a checkpoint is written. Then the next run begins.
"""
import argparse
import gc
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Optional

ROOT = Path(__file__).resolve().parents[1]
for folder in ('', 'tools', 'benchmarks', 'dev'):
    sys.path.insert(0, str(ROOT / folder))

import fuzz_configs  # noqa: E402
import mmengine.config.config as config_module  # noqa: E402
import record  # noqa: E402
import torch  # noqa: E402
import train as train_tool  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from mmseg_encstdc.engine import read_checkpoint, saving  # noqa: E402
from mmseg_encstdc.errors import InputError  # noqa: E402

ITERATIONS = 10
TIMEOUT = 120  # seconds
LONGEST_WRITE = 0.02  # seconds
BEGINS, ENDS = b'b', b'e'  # of a write, in the pipe to the parent


def small(data: Path) -> Config:
    """Return a run of one convolution and a head with dropout, with 2 workers."""
    cfg = fuzz_configs.small('stdc1_camvid', data)
    cfg.model = dict(
        type='EncoderDecoder', data_preprocessor=cfg.model.data_preprocessor,
        backbone=dict(type='LocalNet', depth=1, channels=8),
        decode_head=dict(type='FCNHead', in_channels=8, channels=8, num_convs=1,
                         num_classes=11, dropout_ratio=0.5),
        train_cfg=dict(), test_cfg=dict(mode='whole'))
    cfg.train_dataloader.update(num_workers=2, persistent_workers=True)
    cfg.train_cfg.update(max_iters=ITERATIONS, val_interval=3)
    cfg.param_scheduler = [dict(type='PolyLR', end=ITERATIONS, by_epoch=False)]
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1)
    cfg.default_hooks.pop('visualization')
    return cfg


def _child(config: Path, work: Path, log: Path, pipe: int) -> None:
    """Run tools/train.py --resume; tell the parent when a file is written."""
    torch.set_num_threads(1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    sys.stdout = sys.stderr = os.fdopen(1, 'w', buffering=1)
    # Formatting the config's text takes most of a save of this network.
    config_module.FormatCode = lambda text, **_: (text, True)
    Runner._log_env = lambda *_: None
    stock = saving.replace_file

    def replace_file(*args) -> None:
        os.write(pipe, BEGINS)
        stock(*args)
        os.write(pipe, ENDS)

    saving.replace_file = replace_file
    sys.argv = ['train.py', str(config), '--work-dir', str(work), '--resume']
    train_tool.main()


class Life:
    """A training from its start to its end, or to its kill."""

    def __init__(self, config: Path, work: Path, log: Path):
        self.pipe, write = os.pipe()
        self.process = multiprocessing.get_context('fork').Process(
            target=_child, args=(config, work, log, write))
        self.process.start()
        os.close(write)
        self.writing = False

    def wait_for_write(self, count: int) -> None:
        """Wait until the process has begun to write that many files, or ends."""
        while count:
            byte = os.read(self.pipe, 1)
            if not byte:
                return
            self.writing = byte == BEGINS
            count -= self.writing

    def end(self, delay: Optional[float]) -> bool:
        """Kill the process after a delay, or wait for it; return whether it was killed.

        ``writing`` is then whether it was writing a file.
        """
        self.process.join(TIMEOUT if delay is None else delay)
        killed = self.process.exitcode is None
        if killed:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.join()
            os.set_blocking(self.pipe, False)
            try:
                rest = os.read(self.pipe, 1000)
            except BlockingIOError:  # its data workers are about to end
                rest = b''
            if rest:
                self.writing = rest[-1:] == BEGINS
        os.close(self.pipe)
        return killed


def damaged(work: Path) -> List[str]:
    """Return the checkpoints of a work dir that cannot be read."""
    found = []
    for path in sorted(work.glob('*.pth')):
        try:
            read_checkpoint(str(path))
        except InputError:
            found.append(path.name)
    return found


def result(work: Path) -> Dict[str, torch.Tensor]:
    """Return the weights and the optimizer's state at the end, and of the best."""
    last = read_checkpoint(str(work / f'iter_{ITERATIONS}.pth'))
    found = dict(last['state_dict'])
    for i, state in last['optimizer']['state'].items():
        found[f'momentum {i}'] = state['momentum_buffer']
    for path in sorted(work.glob('best_*.pth')):
        found.update({f'{path.name} {name}': value for name, value in
                      read_checkpoint(str(path))['state_dict'].items()})
    return found


def same(first: Dict[str, torch.Tensor], second: Dict[str, torch.Tensor]) -> bool:
    """Return whether two results are equal to the bit."""
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items())


def kill_runs(kills: int, seed: int, folder: Path) -> dict:
    """Kill runs that many times; count what went wrong.

    Args:
        kills: how many.
        seed: of the moments.
        folder: to write to.
    """
    rng = random.Random(seed)
    classes = fuzz_configs.CONFIGS['stdc1_camvid']
    fuzz_configs.write_data(folder / 'data' / str(classes), classes)
    config = folder / 'config.py'
    small(folder / 'data').dump(config)
    gc.freeze()
    start = time.time()
    Life(config, folder / 'whole', folder / 'whole.log').end(None)
    seconds, expected = time.time() - start, result(folder / 'whole')
    found = dict(seed=seed, kills=0, while_saving=0, runs=0, unloadable=[],
                 failed_resumes=[], different_runs=[])
    while found['kills'] < kills:
        work = folder / f'run{found["runs"]}'
        ended = _run(config, work, found, kills, rng, seconds)
        if ended:
            found['failed_resumes'].append(f'{work.name}: {ended}')
        elif not same(result(work), expected):
            found['different_runs'].append(work.name)
        found['runs'] += 1
    return dict(found, minutes=round((time.time() - start) / 60, 1))


def _run(config: Path, work: Path, found: dict, kills: int, rng: random.Random,
         seconds: float) -> str:
    """Train until the end, with kills on the way; count them in ``found``.

    Args:
        config: to train.
        work: its work dir.
        found: figures, see :func:`kill_runs`.
        kills: after which no more are made.
        rng: chooses the moments.
        seconds: that a run takes.

    Returns:
        the last line of a process that failed, or ''.
    """
    log = work.with_suffix('.log')
    while True:
        life = Life(config, work, log)
        delay = None
        if found['kills'] < kills:
            delay = rng.uniform(0, seconds)
            if found['while_saving'] * 2 <= found['kills']:
                life.wait_for_write(rng.randint(1, 6))
                delay = rng.uniform(0, LONGEST_WRITE)
        killed = life.end(delay)
        if killed and delay is not None:
            found['kills'] += 1
            found['while_saving'] += life.writing
            found['unloadable'] += [f'{work.name} {name}' for name in damaged(work)]
        elif killed or life.process.exitcode:
            return log.read_text(errors='replace').strip().splitlines()[-1]
        else:
            return ''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', help='write here instead of benchmarks/results')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = kill_runs(args.kills, args.seed, Path(folder))
    record.write('kill_runs', figures, kind='cpu', out=args.out)
    print(json.dumps(figures, indent=1))


if __name__ == '__main__':
    main()
