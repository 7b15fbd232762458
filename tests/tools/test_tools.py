"""Run the tools on a few small images in CamVid's layout."""
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.apis import init_model
from tool_process import run_tool

from mmseg_encstdc import compat

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'stdc1_camvid.py'
VAL_IMAGES = 5  # odd: two processes cannot share it evenly


def write_pair(data, split, name, size=(72, 96)):
    """Write an image and its label."""
    rng = np.random.default_rng(abs(hash((split, name))) % 2**32)
    for kind in ('images', 'labels'):
        (data / kind / split).mkdir(parents=True, exist_ok=True)
    label = rng.integers(0, 12, (size[0] // 8, size[1] // 8), np.uint8)
    label = label.repeat(8, 0).repeat(8, 1)
    image = np.stack([label * 20, 255 - label * 20, label], 2)
    cv2.imwrite(str(data / 'images' / split / f'{name}.jpg'), image)
    cv2.imwrite(str(data / 'labels' / split / f'{name}.png'), label)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'camvid'
    for i in range(6):
        write_pair(folder, 'train', f't{i}')
    for i in range(VAL_IMAGES):
        write_pair(folder, 'val', f'v{i}')
    return folder


def options(data, **more):
    """Return --cfg-options for small crops, without data workers."""
    values = {
        'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.pipeline.4.crop_size': '(64,64)',
        'train_dataloader.dataset.pipeline.5.crop_size': '(64,64)',
        **more
    }
    for loader in ('train', 'val', 'test'):
        values[f'{loader}_dataloader.dataset.data_root'] = data
        values[f'{loader}_dataloader.num_workers'] = 0
        values[f'{loader}_dataloader.persistent_workers'] = False
    return ['--cfg-options', *(f'{k}={v}' for k, v in values.items())]


def run(command, **env):
    return subprocess.run(
        [str(word) for word in command], cwd=ROOT, capture_output=True,
        text=True, env={**os.environ, 'OMP_NUM_THREADS': '1',
                        'PYTHON': sys.executable, **env})


def tool(name, *arguments, **env):
    """Run a tool that must succeed; return its output."""
    done = run_tool(name, *arguments, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def error_of(name, *arguments):
    """Run a tool that must fail; return its one line."""
    done = run_tool(name, *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if 'error' in line]
    assert 'Traceback' not in done.stderr, done.stderr
    assert len(lines) == 1 and lines[0].startswith('error: '), done.stderr
    return lines[0]


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return str(s.getsockname()[1])


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """Train 2 iterations; return the work dir and the output."""
    work = tmp_path_factory.mktemp('work')
    output = tool('train.py', CONFIG, '--work-dir', work, '--max-iters', 2,
                  *options(data))
    return work, output


@pytest.fixture(scope='module')
def checkpoint(trained):
    return trained[0] / 'iter_2.pth'


def test_train_validates_and_saves(trained):
    work, output = trained
    assert (work / 'iter_2.pth').is_file()
    assert 'mIoU' in output and 'FWIoU' in output and 'mPA' in output


def test_train_resumes_last_checkpoint(trained, data, tmp_path):
    shutil.copytree(trained[0], tmp_path / 'work')
    output = tool('train.py', CONFIG, '--work-dir', tmp_path / 'work',
                  '--max-iters', 4, '--resume', *options(data))
    assert 'resumed epoch: 0, iter: 2' in output
    first = torch.load(trained[0] / 'iter_2.pth')
    last = torch.load(tmp_path / 'work' / 'iter_4.pth')
    assert last['meta']['iter'] == 4
    key = 'decode_head.conv_seg.weight'
    assert not torch.equal(first['state_dict'][key], last['state_dict'][key])


def test_train_resumes_given_checkpoint(checkpoint, data, tmp_path):
    output = tool('train.py', CONFIG, '--work-dir', tmp_path, '--max-iters', 3,
                  '--resume', checkpoint, *options(data))
    assert 'resumed epoch: 0, iter: 2' in output


def evaluate(data, checkpoint, out, *arguments):
    tool('test.py', CONFIG, checkpoint, '--work-dir', out / 'work', '--out',
         out, *arguments, *options(data))
    return json.loads((out / 'metrics.json').read_text())


@pytest.fixture(scope='module')
def plain(data, checkpoint, tmp_path_factory):
    """Return the metrics of one process."""
    return evaluate(data, checkpoint, tmp_path_factory.mktemp('plain'))


def test_test_counts_every_labelled_pixel(data, plain):
    labelled = sum(
        int((cv2.imread(str(p), cv2.IMREAD_UNCHANGED) < 11).sum())
        for p in (data / 'labels' / 'val').glob('*.png'))
    assert np.sum(plain['confusion']) == labelled


def test_dist_test_gives_same_confusion(
        data, checkpoint, plain, tmp_path):
    done = run(['tools/dist_test.sh', CONFIG, checkpoint, 2, '--work-dir',
                tmp_path / 'work', '--out', tmp_path, *options(data)],
               PORT=free_port())
    assert done.returncode == 0, done.stderr
    both = json.loads((tmp_path / 'metrics.json').read_text())
    assert both['confusion'] == plain['confusion']


def test_dist_train_runs_on_cpu(data, tmp_path):
    done = run(['tools/dist_train.sh', CONFIG, 2, '--work-dir', tmp_path,
                '--max-iters', 2, *options(data)], PORT=free_port())
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert output.count('SyncBN works on GPUs only') == 1
    assert (tmp_path / 'iter_2.pth').is_file()


def test_slurm_train_starts_processes(data, tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('''#!/usr/bin/env bash
# Stand-in: the tasks of --ntasks on this machine, with Slurm's variables.
echo "$@" > "$SRUN_LOG"
for word in "$@"; do
    case $word in --ntasks=*) tasks=${word#--ntasks=};; esac
done
while [[ $1 == -* ]]; do if [ "$1" = -p ]; then shift; fi; shift; done
export SLURM_NTASKS=$tasks SLURM_NODELIST=127.0.0.1
for ((i = 0; i < tasks; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
''')
    srun.chmod(0o755)
    done = run(['tools/slurm_train.sh', 'part', 'job', CONFIG, '--work-dir',
                tmp_path / 'work', '--max-iters', 2, *options(data)],
               PATH=f'{tmp_path}:{os.environ["PATH"]}', GPUS='2',
               SRUN_LOG=str(tmp_path / 'log'), MASTER_PORT=free_port())
    assert done.returncode == 0, done.stdout + done.stderr
    words = (tmp_path / 'log').read_text()
    assert '-p part --job-name=job --gres=gpu:2 --ntasks=2' in words
    assert (tmp_path / 'work' / 'iter_2.pth').is_file()


def test_test_tta_averages_augmented_predictions(
        data, checkpoint, tmp_path):
    evaluate(data, checkpoint, tmp_path, '--tta')
    init_default_scope('mmseg')
    cfg = Config.fromfile(CONFIG)
    model = init_model(cfg, str(checkpoint), device='cpu')
    augment = Compose(cfg.tta_pipeline)
    for path in sorted((data / 'images' / 'val').glob('*.jpg')):
        views = augment(
            dict(img_path=str(path),
                 seg_map_path=str(data / 'labels' / 'val' /
                                  f'{path.stem}.png'),
                 label_map={11: 255}, reduce_zero_label=False, seg_fields=[]))
        assert len(views['inputs']) == 8  # 4 scales, with and without flip
        total = 0
        for image, sample in zip(views['inputs'], views['data_samples']):
            with torch.no_grad():
                result = model.test_step(
                    dict(inputs=[image], data_samples=[sample]))[0]
            total = total + result.seg_logits.data.softmax(0)
        written = cv2.imread(
            str(tmp_path / f'{path.stem}.png'), cv2.IMREAD_UNCHANGED)
        assert (total.argmax(0).numpy() == written).mean() > 0.999


@pytest.mark.parametrize('mode', ['chip', 'slide'])
def test_test_mode_counts_every_labelled_pixel(data, checkpoint, plain, mode, tmp_path):
    metrics = evaluate(data, checkpoint, tmp_path, '--mode', mode)
    assert np.sum(metrics['confusion']) == np.sum(plain['confusion'])


def test_test_show_dir_writes_every_image(data, checkpoint, tmp_path):
    evaluate(data, checkpoint, tmp_path, '--show-dir', tmp_path / 'show')
    assert len(list((tmp_path / 'show').rglob('*.png'))) == VAL_IMAGES


def test_predict_writes_overlays_and_label_maps(
        data, checkpoint, plain, tmp_path):
    output = tool('predict.py', CONFIG, checkpoint, data / 'images' / 'val',
                  '--out', tmp_path)
    assert f'{VAL_IMAGES} label maps' in output and '100%' in output
    hits = 0
    for path in (data / 'labels' / 'val').glob('*.png'):
        truth, label = (cv2.imread(str(p), cv2.IMREAD_UNCHANGED)
                        for p in (path, tmp_path / 'labels' / path.name))
        assert label.dtype == np.uint8 and label.shape == truth.shape
        hits += int((label == truth)[truth < 11].sum())
        picture = cv2.imread(str(tmp_path / 'overlays' / f'{path.stem}.jpg'))
        assert picture.shape == (*truth.shape, 3)
    # These are the predictions that test.py scored.
    assert hits == np.trace(plain['confusion'])


def test_check_dataset_reads_all_images(data):
    cfg = ROOT / 'configs' / 'stdc1_camvid.py'
    folder = data.parent / 'linked'
    folder.mkdir()
    (folder / 'data').mkdir()
    (folder / 'data' / 'camvid').symlink_to(data)
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / 'check_dataset.py'), str(cfg)],
        cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f'{VAL_IMAGES} images and labels are sound' in done.stdout


# --- Errors ------------------------------------------------------------------


@pytest.fixture
def broken(data, tmp_path):
    """Return a copy of the data, for tests that change it."""
    return Path(shutil.copytree(data, tmp_path / 'camvid'))


def train_error(data, *flags, **more):
    return error_of('train.py', CONFIG, '--work-dir', data.parent / 'w',
                    '--max-iters', 4, *flags, *options(data, **more))


def test_train_names_missing_data_root(tmp_path):
    line = train_error(tmp_path / 'nowhere')
    assert 'nowhere does not exist' in line and 'SegNet tutorial' in line


def test_train_names_label_of_other_size(broken):
    cv2.imwrite(str(broken / 'labels' / 'val' / 'v1.png'),
                np.zeros((10, 20), np.uint8))
    line = train_error(broken)
    assert 'v1.png is 20 x 10' in line and '96 x 72' in line


def test_train_names_other_num_classes(data):
    line = train_error(data, **{'model.decode_head.num_classes': 5})
    assert 'model.decode_head.num_classes is 5' in line and '11' in line


def test_tools_name_missing_config_or_checkpoint(data, tmp_path):
    assert 'no.py does not exist' in error_of('train.py', 'configs/no.py')
    assert 'no.pth does not exist' in error_of(
        'test.py', CONFIG, 'no.pth', *options(data))
    assert 'no.pth does not exist' in error_of(
        'predict.py', CONFIG, 'no.pth', data, '--out', tmp_path)


def test_tools_reject_checkpoint_of_other_network(data, checkpoint, tmp_path):
    other = torch.load(checkpoint)
    other['state_dict'] = {
        key: value[:5] if key.startswith('decode_head.conv_seg') else value
        for key, value in other['state_dict'].items()
    }
    torch.save(other, tmp_path / 'five.pth')
    for line in (
            error_of('test.py', CONFIG, tmp_path / 'five.pth', *options(data)),
            error_of('predict.py', CONFIG, tmp_path / 'five.pth',
                     data / 'images' / 'val', '--out', tmp_path / 'out'),
            train_error(data, '--resume', tmp_path / 'five.pth')):
        assert 'five.pth does not fit the config: 1 weights' in line
        assert 'decode_head.conv_seg.weight' in line


@pytest.mark.parametrize('content', [b'', b'text', b'PK\x03\x04 cut short'])
def test_test_rejects_damaged_checkpoint(data, tmp_path, content):
    (tmp_path / 'bad.pth').write_bytes(content)
    line = error_of('test.py', CONFIG, tmp_path / 'bad.pth', *options(data))
    assert 'bad.pth cannot be read' in line


def test_test_rejects_other_content(data, tmp_path):
    torch.save({'foo': 1}, tmp_path / 'foo.pth')
    line = error_of('test.py', CONFIG, tmp_path / 'foo.pth', *options(data))
    assert 'foo.pth is no checkpoint of MMEngine' in line


def test_train_resume_keeps_best_of_other_work_dir(
        trained, data, tmp_path):
    before = {p.name for p in trained[0].glob('*.pth')}
    assert any(name.startswith('best_mIoU') for name in before)
    tool('train.py', CONFIG, '--work-dir', tmp_path, '--max-iters', 4,
         '--resume', trained[0] / 'iter_2.pth', *options(data))
    assert {p.name for p in trained[0].glob('*.pth')} == before


def test_predict_rejects_truncated_image(data, checkpoint, tmp_path):
    image = next((data / 'images' / 'val').glob('*.jpg')).read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(image[:len(image) // 2])
    line = error_of('predict.py', CONFIG, checkpoint, tmp_path / 'cut.jpg',
                    '--out', tmp_path / 'out')
    assert 'cut.jpg cannot be read' in line


def test_predict_leaves_its_output_out(
        data, checkpoint, tmp_path):
    shutil.copytree(data / 'images' / 'val', tmp_path / 'images')
    for _ in range(2):
        output = tool('predict.py', CONFIG, checkpoint, tmp_path / 'images',
                      '--out', tmp_path / 'images' / 'out')
        assert f'{VAL_IMAGES} label maps' in output


def test_test_names_output_that_is_a_file(data, checkpoint, tmp_path):
    (tmp_path / 'file').write_text('')
    line = error_of('test.py', CONFIG, checkpoint, '--out', tmp_path / 'file',
                    *options(data))
    assert 'file cannot be written' in line


@pytest.mark.parametrize('option, key', [
    ('model.decode_head.in_index=x', 'AssertionError'),
    ('model.decode_head.type=NoHead', 'NoHead'),
    ('train_dataloader.dataset.data_prefix.img_path=no', 'no does not exist'),
])
def test_train_names_wrong_config_value(data, option, key):
    line = train_error(data, **dict([option.split('=')]))
    assert key in line


@pytest.mark.parametrize('length', [0, -3])
def test_train_rejects_max_iters_below_one(data, length):
    line = error_of('train.py', CONFIG, '--max-iters', length,
                    *options(data))
    assert f'--max-iters must be at least 1, got {length}' in line


@pytest.mark.parametrize('words', [('abc', ), ('0', )])
def test_dist_train_rejects_number_of_processes(words):
    done = run(['tools/dist_train.sh', CONFIG, *words])
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f'got {words[0]}' in done.stderr


def test_test_lists_modes(data, checkpoint):
    line = error_of('test.py', CONFIG, checkpoint, '--mode', 'x',
                    *options(data))
    assert 'chip, slide' in line


def test_train_names_accepted_mmcv(tmp_path):
    (tmp_path / 'mmcv.py').write_text("__version__ = '1.7.0'\n")
    done = run([sys.executable, 'tools/train.py', CONFIG],
               PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    low, high, _ = compat.requirement('mmcv')
    assert f'mmcv >= {low}, < {high}, found 1.7.0' in done.stderr
