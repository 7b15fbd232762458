"""Test trainings whose work dir is on a disk that is full or cannot be written."""
import os
import subprocess

import pytest
import torch
from small_run import write_run
from tool_process import run_tool

LENGTH = 6  # of a training, in iterations


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('run'))


@pytest.fixture
def disk(tmp_path):
    """Return an empty folder and a function that mounts it with options.

    The disk is in memory. Only the superuser can mount one.
    """
    folder = tmp_path / 'disk'
    folder.mkdir()

    def mount(options):
        words = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(folder)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f'cannot mount a disk: {done.stderr.strip()}')

    try:
        yield folder, mount
    finally:
        subprocess.run(['umount', str(folder)], capture_output=True)


def train(config, work, *words, length=LENGTH):
    """Train with a checkpoint after each iteration; return code and errors."""
    done = run_tool('train.py', config, '--work-dir', work, *words, '--cfg-options',
                    f'train_cfg.max_iters={length}', 'train_cfg.val_interval=100',
                    'default_hooks.checkpoint.interval=1',
                    'default_hooks.checkpoint.max_keep_ckpts=-1')
    return done.returncode, done.stderr


@pytest.mark.parametrize('left', [0, 40, 160])  # KiB
def test_train_keeps_checkpoints_on_full_disk(config, disk, left):
    folder, mount = disk
    mount('size=2m')
    code, errors = train(config, folder, length=3)
    assert code == 0, errors
    kept = {path: torch.load(path)['meta']['iter'] for path in folder.glob('*.pth')}
    free = os.statvfs(folder)
    (folder / 'filler').write_bytes(
        bytes(free.f_bavail * free.f_bsize - left * 1024))

    code, errors = train(config, folder, '--resume')
    assert code == 1
    line, = errors.splitlines()
    assert line.startswith('error: ')
    assert 'cannot be written: No space left on device' in line
    for path, iteration in kept.items():
        assert torch.load(path)['meta']['iter'] == iteration

    (folder / 'filler').unlink()
    code, errors = train(config, folder, '--resume')
    assert code == 0, errors
    assert torch.load(folder / f'iter_{LENGTH}.pth')['meta']['iter'] == LENGTH


def test_train_names_read_only_work_dir(config, disk):
    folder, mount = disk
    mount('ro')
    for work in (folder, folder / 'new'):
        code, errors = train(config, work)
        assert code == 1
        line, = errors.splitlines()
        assert line.startswith(f'error: folder {work} cannot be written')
        assert 'Read-only' in line
