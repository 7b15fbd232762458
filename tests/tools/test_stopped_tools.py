"""Test how a training ends at a signal, and when a process of it is killed."""
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from small_run import write_run
from tool_process import run_tool, started_tool


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('run'))


def arguments(config, work, **values):
    """Return the arguments of a training without end, with one data worker."""
    values = {'train_dataloader.num_workers': 1, **values}
    return [config, '--work-dir', work, '--cfg-options',
            *(f'{key}={value}' for key, value in values.items())]


def trains(tool):
    """Return a function that tells whether a tool has trained an iteration."""
    return lambda: 'Iter(train)' in tool.output()[0]


def children(pid):
    """Return the process ids of the children of a process."""
    return [int(p) for path in Path(f'/proc/{pid}/task').glob('*/children')
            for p in path.read_text().split()]


def gone(pids, seconds=10):
    """Wait for processes to end; return whether they have."""
    end = time.time() + seconds
    while time.time() < end and any(map(runs, pids)):
        time.sleep(0.05)
    return not any(map(runs, pids))


def runs(pid):
    """Return whether a process runs; one that has ended may wait for its parent."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2][1] != 'Z'
    except OSError:
        return False


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM', 'SIGUSR1'])
def test_train_saves_at_signal(config, tmp_path, name):
    number = getattr(signal, name)
    with started_tool('train.py', *arguments(config, tmp_path)) as tool:
        tool.wait_for(trains(tool))
        workers = children(tool.process.pid)
        for pid in (*workers, tool.process.pid):  # as a terminal or Slurm does
            os.kill(pid, number)
        done = tool.wait(60)
    assert done.returncode == 128 + number, done.stderr
    path = (tmp_path / 'last_checkpoint').read_text()
    iteration = torch.load(path)['meta']['iter']
    assert iteration >= 1 and Path(path).name == f'iter_{iteration}.pth'
    assert len(workers) == 1 and gone(workers)
    lines = done.stderr.strip().splitlines()
    assert lines == [
        f'stopped by {name} after iteration {iteration}; the last checkpoint is '
        f'{path}, continue from it with the same command and --resume']
    if name == 'SIGTERM':  # follows the remedy
        again = run_tool('train.py', *arguments(config, tmp_path, **{
            'train_cfg.max_iters': iteration + 1}), '--resume')
        assert again.returncode == 0, again.stderr
        assert (tmp_path / f'iter_{iteration + 1}.pth').is_file()


def test_train_ends_at_second_signal(config, tmp_path):
    """A worker that is stopped keeps the training from its next iteration."""
    with started_tool('train.py', *arguments(config, tmp_path)) as tool:
        tool.wait_for(trains(tool))
        workers = children(tool.process.pid)
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1)  # the batches that are ready are used up
        os.kill(tool.process.pid, signal.SIGTERM)
        time.sleep(1.2)
        os.kill(tool.process.pid, signal.SIGINT)
        done = tool.wait(10)
    assert gone(workers)
    if (tmp_path / 'last_checkpoint').exists():
        pytest.skip('the machine is too slow: an iteration ended after the signal')
    assert done.returncode == 130
    assert done.stderr.strip().splitlines() == [
        f'second signal: stopped by SIGINT; {tmp_path} has no checkpoint yet, so start '
        'again']


def test_train_saves_at_signal_during_validation(config, tmp_path):
    with started_tool('train.py', *arguments(
            config, tmp_path, **{'train_cfg.val_interval': 2,
                                 'val_dataloader.num_workers': 1})) as tool:
        tool.wait_for(lambda: 'Iter(val)' in tool.output()[0])
        os.kill(tool.process.pid, signal.SIGTERM)
        done = tool.wait(60)
    assert done.returncode == 143
    assert done.stderr.startswith('stopped by SIGTERM after iteration 2;')
    assert torch.load(tmp_path / 'iter_2.pth')['meta']['iter'] == 2
    assert 'mIoU: ' not in done.stdout
    again = run_tool('train.py', *arguments(
        config, tmp_path, **{'train_cfg.val_interval': 2, 'train_cfg.max_iters': 3}),
        '--resume')
    assert again.returncode == 0, again.stderr
    assert again.stdout.index('mIoU: ') < again.stdout.index('Iter(train) [3/3]')


@pytest.mark.parametrize('phase', ['data', 'model'])
def test_train_stops_at_signal_before_first_iteration(config, tmp_path, phase):
    """The work dir is there before the data checks, the log before the model."""
    with started_tool('train.py', *arguments(config, tmp_path / 'work')) as tool:
        tool.wait_for(lambda: (tmp_path / 'work').exists() and (
            phase == 'data' or list((tmp_path / 'work').glob('*/*.log'))))
        os.kill(tool.process.pid, signal.SIGINT)
        done = tool.wait(60)
    assert done.returncode == 130
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith('stopped by SIGINT'), done.stderr


def test_train_names_cause_of_killed_worker(config, tmp_path):
    with started_tool('train.py', *arguments(config, tmp_path)) as tool:
        tool.wait_for(trains(tool))
        worker, = children(tool.process.pid)
        os.kill(worker, signal.SIGKILL)
        done = tool.wait(60)
    assert done.returncode == 1
    line, = [line for line in done.stderr.splitlines() if 'arn' not in line]
    assert line.startswith('error: a data worker was ended') and 'num_workers' in line
    assert 'shared memory' in line
