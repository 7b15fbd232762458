"""Test how the tools try a run."""
import os
import shutil
import socket
import subprocess
import sys

import pytest
from test_tools import CONFIG, ROOT, error_of, options, tool, write_pair


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'camvid'
    for i in range(4):
        write_pair(folder, 'train', f't{i}')
        write_pair(folder, 'val', f'v{i}')
    return folder


@pytest.fixture(scope='module')
def checkpoint(data, tmp_path_factory):
    work = tmp_path_factory.mktemp('work')
    tool('train.py', CONFIG, '--work-dir', work, '--max-iters', 1, *options(data))
    return work / 'iter_1.pth'


def test_train_dry_run_leaves_no_folder(data, tmp_path):
    output = tool('train.py', CONFIG, '--work-dir', tmp_path / 'a/b', '--dry-run',
                  *options(data))
    assert 'stdc1_camvid.py is sound: one batch of train, val passed' in output
    assert list(tmp_path.iterdir()) == []


def test_train_dry_run_names_fault(data, tmp_path):
    line = error_of('train.py', CONFIG, '--work-dir', tmp_path / 'a/b', '--dry-run',
                    *options(data, **{'optim_wrapper.optimizer.type': 'SGDD'}))
    assert 'optim_wrapper.optimizer.type SGDD' in line and 'did you mean SGD?' in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('option', ['--out', '--show-dir'])
def test_test_refuses_names_in_two_folders_and_follows_its_remedy(
        data, checkpoint, tmp_path, option):
    for kind in ('images', 'labels'):
        for name in 'ab':
            shutil.copytree(data / kind / 'val', tmp_path / kind / 'val' / name)
    words = ['test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'work', option,
             tmp_path / 'out', *options(tmp_path)]
    line = error_of(*words)
    assert 'a/v0.jpg' in line and 'b/v0.jpg would be written to one file' in line
    assert 'test_dataloader.dataset' in line and 'tools/predict.py' in line
    prefix = 'test_dataloader.dataset.data_prefix.{}={}/val/a'
    tool(*words, prefix.format('img_path', 'images'),
         prefix.format('seg_map_path', 'labels'))
    assert len(list((tmp_path / 'out').rglob('*v[0-3]*.png'))) == 4
    tool('predict.py', CONFIG, checkpoint, tmp_path / 'images/val', '--out',
         tmp_path / 'predicted')
    assert len(list((tmp_path / 'predicted/labels').rglob('v*.png'))) == 8


def test_train_names_taken_port(data, tmp_path):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, 'tools/train.py', str(CONFIG), '--work-dir',
             str(tmp_path), '--launcher', 'pytorch', *options(data)],
            cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, 'RANK': '0', 'LOCAL_RANK': '0', 'WORLD_SIZE': '1',
                 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port})
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    lines = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
    assert len(lines) == 1 and port in lines[0] and 'free' in lines[0]


@pytest.mark.parametrize('workers', [0, 1])
def test_test_show_dir_needs_no_training_set(data, checkpoint, tmp_path, workers):
    shutil.copytree(data / 'images/val', tmp_path / 'set/images/val')
    shutil.copytree(data / 'labels/val', tmp_path / 'set/labels/val')
    tool('test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'work', '--show-dir',
         tmp_path / 'shown', '--cfg-options',
         f'test_dataloader.dataset.data_root={tmp_path}/set',
         'train_dataloader.dataset.data_root=/nowhere',
         f'test_dataloader.num_workers={workers}', 'train_dataloader.num_workers=0')
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 4


def test_dist_train_ends_on_failing_rank(data, tmp_path):
    """The trial of two processes agrees on an error, and does not hang."""
    done = subprocess.run(
        ['tools/dist_train.sh', str(CONFIG), '2', '--work-dir', str(tmp_path),
         '--dry-run', *options(data, **{'train_dataloader.dataset.pipeline.2.prb': 1})],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1',
             'PORT': free_port()})
    assert done.returncode != 0
    assert 'pipeline[2].prb: RandomFlip has no argument prb' in done.stderr
    assert 'InputError' not in done.stderr


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return str(s.getsockname()[1])
