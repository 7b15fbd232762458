"""Test the tools on a classifier, with a few small images."""
import importlib.util
import re
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tool_process import run_tool

from mmseg_encstdc.engine import check_config, check_data
from mmseg_encstdc.errors import InputError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'stdc1_imagenet.py'
LOADERS = ['train_dataloader', 'val_dataloader']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Write dark cats and bright dogs, 64 x 64: 4 images to train, 3 to validate."""
    folder = tmp_path_factory.mktemp('data') / 'pets'
    counts = dict(train=dict(cat=2, dog=2), val=dict(cat=1, dog=2))
    for split, classes in counts.items():
        for name, count in classes.items():
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                image = np.full((64, 64, 3), dict(cat=40, dog=200)[name], np.uint8)
                Image.fromarray(image + i).save(folder / split / name / f'{i}.JPEG')
    return folder


@pytest.fixture
def broken(data, tmp_path):
    """Return a copy of the data, for tests that change it."""
    return Path(shutil.copytree(data, tmp_path / 'pets'))


def options(data):
    """Return --cfg-options for two classes and one epoch of two batches."""
    values = {
        'model.num_classes': 2,
        'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.pipeline.1.size': 64,
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.logger.interval': 1,
    }
    for loader in ('train', 'val', 'test'):
        values[f'{loader}_dataloader.dataset.data_root'] = data
        values[f'{loader}_dataloader.num_workers'] = 0
        values[f'{loader}_dataloader.persistent_workers'] = False
    return ['--cfg-options', *(f'{k}={v}' for k, v in values.items())]


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """Train two iterations; return the work dir and the output."""
    work = tmp_path_factory.mktemp('work')
    done = run_tool('train.py', CONFIG, '--work-dir', work, *options(data))
    assert done.returncode == 0, done.stdout + done.stderr
    return work, done.stdout + done.stderr


def test_train_logs_validates_and_saves(trained):
    work, output = trained
    assert re.search(r'Epoch\(train\) +\[1\]\[2/2\].* loss_cls: .* top1: ', output)
    assert re.search(r'Epoch\(val\) .* top1: [\d.]+ +top5: 100', output)
    assert (work / 'epoch_1.pth').is_file()
    assert (work / 'best_top1_epoch_1.pth').is_file()
    meta = torch.load(work / 'epoch_1.pth')['meta']
    assert meta['iter'] == 2
    assert tuple(meta['dataset_meta']['classes']) == ('cat', 'dog')


def test_test_equals_validation(trained, data, tmp_path):
    work, output = trained
    done = run_tool('test.py', CONFIG, work / 'epoch_1.pth', '--work-dir', tmp_path,
               *options(data))
    assert done.returncode == 0, done.stdout + done.stderr
    top1 = re.compile(r'Epoch\((?:val|test)\) .* top1: ([\d.]+)')
    found = top1.findall(done.stdout + done.stderr)[-1]
    assert found == top1.findall(output)[-1]
    assert float(found) in (pytest.approx(100 * k / 3, abs=1e-3) for k in range(4))


def test_check_dataset_counts_images_of_each_class(data):
    done = run_tool('check_dataset.py', CONFIG, *options(data))
    assert done.returncode == 0, done.stderr
    assert '4 images and labels are sound' in done.stdout
    assert re.search(r'cat +\| +33.33', done.stdout), done.stdout


def test_train_names_unreadable_image(broken, tmp_path):
    (broken / 'train/dog/1.JPEG').write_bytes(b'no image')
    done = run_tool('train.py', CONFIG, '--work-dir', tmp_path / 'w', *options(broken))
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    line, = (line for line in done.stderr.splitlines() if 'error: ' in line)
    assert 'dog/1.JPEG cannot be read' in line


def load_tool(name):
    """Import a tool as a module."""
    spec = importlib.util.spec_from_file_location(
        f'tool_{name}', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('flag, message', [
    (dict(show_dir='show'), '--show-dir needs default_hooks.visualization'),
    (dict(out='out'), '--out needs a segmentation network'),
    (dict(raw_ids=True), '--raw-ids needs --out'),
    (dict(tta=True), '--tta needs tta_pipeline'),
    (dict(mode='chip'), '--mode chip is not in test_modes'),
])
def test_test_rejects_options_of_segmentation(
        trained, flag, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = dict(mode=None, tta=False, out=None, show_dir=None, raw_ids=False)
    args = Namespace(checkpoint=str(trained[0] / 'epoch_1.pth'), **{**flags, **flag})
    with pytest.raises(InputError, match=message):
        load_tool('test').apply_options(args, Config.fromfile(CONFIG))


# --- check_config, check_data ------------------------------------------------


def config_on(folder, **model):
    cfg = Config.fromfile(CONFIG)
    cfg.model.update({'num_classes': 2, **model})
    cfg.train_dataloader.batch_size = 2
    for loader in LOADERS:
        cfg[loader].dataset.data_root = str(folder)
    return cfg


def error_of(function, cfg):
    with pytest.raises(InputError) as caught:
        function(cfg, LOADERS)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_checks_accept_classifier(data):
    assert check_config(config_on(data), LOADERS, training=True) is None
    assert check_data(config_on(data), LOADERS) is None


def test_check_config_names_source_of_imagenet(tmp_path):
    message = error_of(check_config, config_on(tmp_path / 'none'))
    assert 'none does not exist' in message and 'image-net.org' in message


def test_check_data_names_other_number_of_folders(data):
    message = error_of(check_data, config_on(data, num_classes=1000))
    assert 'model.num_classes is 1000' in message
    assert 'ImageFolderDataset (train_dataloader) has 2 classes' in message


def test_check_config_names_other_number_of_classes(data):
    cfg = config_on(data)
    cfg.train_dataloader.dataset.metainfo = dict(classes=['cat'])
    assert 'model.num_classes is 2' in error_of(check_config, cfg)


def test_check_data_compares_class_file(data, tmp_path):
    cfg = config_on(data)
    (tmp_path / 'classes.txt').write_text('cat\n')
    for loader in LOADERS:
        cfg[loader].dataset.metainfo = dict(classes=str(tmp_path / 'classes.txt'))
    assert check_config(cfg, LOADERS) is None  # the file is not read yet
    assert 'has 1 classes' in error_of(check_data, cfg)


def test_check_data_names_differing_folders(broken):
    (broken / 'val/dog').rename(broken / 'val/ape')
    message = error_of(check_data, config_on(broken))
    assert 'class 0 is cat in train_dataloader and ape in val_dataloader' in message
