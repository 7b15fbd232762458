"""Test how runs of several processes end: killed, stuck, late, mistaken."""
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from small_run import free_port, write_run
from test_stopped_tools import children, gone

ROOT = Path(__file__).parents[2]

# Exchanges a number until it is ended, and writes its process id once it does.
EXCHANGE = '''
    import os, sys, time
    import torch
    import torch.distributed as dist
    from mmengine.config import Config
    from mmseg_encstdc.engine import heartbeat, start_processes
    from mmseg_encstdc.errors import one_line_errors

    heartbeat.BEAT, heartbeat.SILENCE = 0.2, 2.0
    late = float(sys.argv[2])
    with one_line_errors():
        start_processes(Config(dict(env_cfg=dict(dist_cfg=dict(
            timeout=4 if late else 600)))), 'pytorch')
        rank = dist.get_rank()
        for i in range(10**9):
            dist.all_reduce(torch.zeros(1))
            if i == 9:
                with open(f'{sys.argv[1]}/{rank}.new', 'w') as file:
                    file.write(str(os.getpid()))
                os.rename(file.name, f'{sys.argv[1]}/{rank}')
            time.sleep(late * rank if i == 9 else 0.01)
'''


class Launched:
    """A command with its output in files."""

    def __init__(self, folder, words, **env):
        self.paths = [folder / 'out', folder / 'err']
        files = [path.open('w') for path in self.paths]
        self.process = subprocess.Popen(
            [str(word) for word in words], cwd=ROOT, stdout=files[0], stderr=files[1],
            start_new_session=True,
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1',
                 'PYTHON': sys.executable, 'PYTHONWARNINGS': 'ignore',
                 'PORT': free_port(), **env})

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def wait_for(self, condition, seconds=300):
        end = time.time() + seconds
        while not condition():
            assert time.time() < end and self.process.poll() is None, self.errors()
            time.sleep(0.02)

    def errors(self):
        """Return the lines of the error output."""
        return self.paths[1].read_text().strip().splitlines()


def trained(folder, config, *arguments, **env):
    """Return a Launched training in two processes, each with a data worker."""
    return Launched(
        folder, ['tools/dist_train.sh', config, 2, '--work-dir', folder / 'work',
                 *arguments, '--cfg-options', 'train_dataloader.num_workers=1'], **env)


def exchanging(folder, number, late=0.0, **env):
    """Return a Launched script EXCHANGE of some processes."""
    script = folder / 'exchange.py'
    script.write_text(textwrap.dedent(EXCHANGE))
    output = folder / ('node' + env.get('NODE_RANK', '0'))
    output.mkdir()
    return Launched(output, [sys.executable, 'tools/dist_run.py', number, script,
                             folder, late], **env)


def pid_of(folder, rank):
    """Return the process id that a rank of EXCHANGE has written."""
    return int((folder / str(rank)).read_text())


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('run'))


def test_dist_train_ends_with_killed_rank(config, tmp_path):
    with trained(tmp_path, config) as run:
        run.wait_for(lambda: 'Iter(train)' in run.paths[0].read_text())
        ranks = children(run.process.pid)
        workers = [pid for rank in ranks for pid in children(rank)]
        os.kill(ranks[1], signal.SIGKILL)
        assert run.process.wait(60) == 137
    assert len(ranks) == 2 and len(workers) == 2 and gone(ranks + workers)
    assert run.errors() == [
        'error: rank 1 was ended by SIGKILL, as the system does when memory runs out; '
        'the others were ended too; a training goes on with the same command and '
        '--resume']


@pytest.mark.parametrize('name', ['SIGKILL', 'SIGUSR1'])
def test_dist_train_saves_at_signal_to_launcher(config, tmp_path, name):
    """The ranks get SIGTERM when the launcher is killed, and each signal to it."""
    number = getattr(signal, name)
    with trained(tmp_path, config) as run:
        run.wait_for(lambda: 'Iter(train)' in run.paths[0].read_text())
        ranks = children(run.process.pid)
        workers = [pid for rank in ranks for pid in children(rank)]
        os.kill(run.process.pid, number)
        code = run.process.wait(60)
        assert gone(ranks + workers, 60)
    assert code == (-9 if name == 'SIGKILL' else 128 + number)
    path = (tmp_path / 'work/last_checkpoint').read_text()
    told = 'SIGTERM' if name == 'SIGKILL' else name
    iteration = torch.load(path)['meta']['iter']
    assert [line[:len(told) + 40] for line in run.errors()] == [
        f'stopped by {told} after iteration {iteration}; the last checkpoint is '
        f'{path}'[:len(told) + 40]]


def test_dist_train_prints_mistake_once(config, tmp_path):
    with trained(tmp_path, config, '--resume', 'no.pth') as run:
        assert run.process.wait(120) == 1
    assert len(run.errors()) == 1 and 'no.pth does not exist' in run.errors()[0]


def test_dist_train_names_taken_port(config, tmp_path):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with trained(tmp_path, config, PORT=port) as run:
            assert run.process.wait(60) == 1
    line, = run.errors()
    assert line.startswith(f'error: port {port} is taken') and 'set PORT to' in line


def test_stopped_rank_ends_others(tmp_path):
    with exchanging(tmp_path, 2) as run:
        run.wait_for((tmp_path / '1').exists)
        ranks = [pid_of(tmp_path, rank) for rank in (0, 1)]
        os.kill(ranks[1], signal.SIGSTOP)
        assert run.process.wait(30) == 75
    assert gone(ranks)
    line, = run.errors()
    assert line.startswith('error: rank 1 has not answered for 2 s')


def test_killed_rank_ends_other_launcher(tmp_path):
    common = dict(NNODES='2', PORT=free_port())
    with exchanging(tmp_path, 1, NODE_RANK='0', **common) as first, exchanging(
            tmp_path, 1, NODE_RANK='1', **common) as second:
        first.wait_for((tmp_path / '1').exists)
        os.kill(pid_of(tmp_path, 1), signal.SIGKILL)
        assert second.process.wait(30) == 137
        assert first.process.wait(30) == 75
    assert 'error: rank 1 was ended by SIGKILL' in second.errors()[0]
    assert first.errors() == [
        'error: rank 0 lost a rank of another machine; see the output there']


def test_late_rank_ends_others_after_timeout(tmp_path):
    with exchanging(tmp_path, 2, late=60.0) as run:
        assert run.process.wait(120) == 75
    line, = [line for line in run.errors() if line.startswith('error: ')]
    assert line.startswith('error: rank 0 waited 4 s for another one, the limit of '
                           'env_cfg.dist_cfg.timeout')


# Stand-ins for srun: one task with Slurm's variables, which gets Slurm's signal once it
# trains; and a task that has ended at the signal.
TASK = '''
while [[ $1 == -* ]]; do if [ "$1" = -p ]; then shift; fi; shift; done
SLURM_NTASKS=1 SLURM_NODELIST=127.0.0.1 SLURM_PROCID=0 "$@" > "$LOG.out" & task=$!
until grep -q 'Iter(train)' "$LOG.out"; do sleep 0.1; done
kill -USR1 $PPID $task
wait $task
'''
ENDED = 'exit 138'


def slurm(folder, config, srun, **env):
    """Run slurm_train.sh with a stand-in; return the calls of srun and scontrol."""
    for name, text in (('srun', srun), ('scontrol', '')):
        (folder / name).write_text(
            f'#!/usr/bin/env bash\necho {name} "$@" >> "$LOG"\n{text}')
        (folder / name).chmod(0o755)
    with Launched(folder, ['tools/slurm_train.sh', 'part', 'job', config,
                           '--work-dir', folder / 'work'],
                  GPUS='1', LOG=str(folder / 'log'), MASTER_PORT=free_port(),
                  PATH=f'{folder}:{os.environ["PATH"]}', **env) as run:
        assert run.process.wait(200) == 138, run.errors()
    return run, (folder / 'log').read_text()


def test_slurm_train_requeues_at_signal(config, tmp_path):
    run, calls = slurm(tmp_path, config, TASK, SLURM_JOB_ID='7')
    assert '--signal=USR1@120' in calls and '--resume' not in calls
    assert calls.endswith('scontrol requeue 7\n')
    assert run.errors()[-1].startswith('stopped by SIGUSR1 after iteration')
    assert (tmp_path / 'work/last_checkpoint').is_file()


def test_slurm_train_resumes_when_requeued(config, tmp_path):
    _, calls = slurm(tmp_path, config, ENDED, SLURM_JOB_ID='7', SLURM_RESTART_COUNT='1')
    assert 'work --resume\n' in calls


def test_slurm_train_requeues_no_interactive_job(config, tmp_path):
    _, calls = slurm(tmp_path, config, ENDED)
    assert 'scontrol' not in calls
