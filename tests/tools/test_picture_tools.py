"""Run all tools on TIFF files of five bands of 16 bits, and on turned photographs."""
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tool_process import run_tool

from mmseg_encstdc.datasets.image_formats import turn

ROOT = Path(__file__).parents[2]
SIZE = (72, 96)
CONFIG = '''
_base_ = '{base}'
load_image = dict(type='LoadSegImage', bands=5, dtype='uint16')
crop = [dict(type='RandomCrop', crop_size=(64, 64)), dict(type='PackSegInputs')]
train_pipeline = [load_image, dict(type='LoadSegAnnotations'), *crop]
test_pipeline = [load_image, *_base_.test_pipeline[1:]]
own = dict(data_root='{data}', img_suffix='.tif')
alone = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=2, dataset=dict(pipeline=train_pipeline, **own), **alone)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **own), **alone)
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(mean=[20000.] * 5, std=[9000.] * 5),
    backbone=dict(backbone_cfg=dict(in_channels=5)))
'''


def tool(name, *arguments):
    """Run a tool and return its exit code and its output."""
    done = run_tool(name, *arguments)
    output = done.stdout + done.stderr
    assert 'Traceback' not in output, output
    return done.returncode, output


def succeed(*arguments):
    code, output = tool(*arguments)
    assert code == 0, output
    return output


def error_of(*arguments):
    """Run a tool that must fail; return its one line."""
    code, output = tool(*arguments)
    line, = (line for line in output.splitlines() if line.startswith('error: '))
    assert code == 1
    return line


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Train on TIFF files; return the config, the checkpoint and the data."""
    tifffile = pytest.importorskip('tifffile')
    folder = tmp_path_factory.mktemp('tiff')
    random = np.random.default_rng(0)
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (folder / kind / split).mkdir(parents=True)
        for i in range(3):
            label = random.integers(0, 11, (SIZE[0] // 8, SIZE[1] // 8), np.uint8)
            label = label.repeat(8, 0).repeat(8, 1)
            bands = np.stack([label * np.uint16(4000 + j) for j in range(5)], 2)
            tifffile.imwrite(folder / f'images/{split}/{i}.tif', bands,
                             photometric='minisblack', planarconfig='contig')
            cv2.imwrite(str(folder / f'labels/{split}/{i}.png'), label)
    config = folder / 'net.py'
    config.write_text(CONFIG.format(base=ROOT / 'configs/stdc1_camvid.py', data=folder))
    output = succeed('train.py', config, '--work-dir', folder, '--max-iters', 2)
    assert 'mIoU' in output
    return config, folder / 'iter_2.pth', folder


@pytest.mark.slow
def test_check_dataset_reads_bands(trained):
    assert '3 images and labels are sound' in succeed('check_dataset.py', trained[0])


@pytest.mark.slow
def test_test_of_bands_in_modes_whole_and_chip(trained, tmp_path):
    config, checkpoint, _ = trained
    for mode in ([], ['--mode', 'chip']):
        assert 'mIoU' in succeed(
            'test.py', config, checkpoint, '--work-dir', tmp_path, *mode)


@pytest.mark.slow
def test_test_show_dir_of_bands_names_predict_which_works(trained, tmp_path):
    config, checkpoint, folder = trained
    line = error_of('test.py', config, checkpoint, '--work-dir', tmp_path,
                    '--show-dir', tmp_path / 'show')
    assert '5 bands of uint16' in line and 'tools/predict.py' in line
    succeed('predict.py', config, checkpoint, folder / 'images/val',
            '--out', tmp_path / 'out')
    label = cv2.imread(str(tmp_path / 'out/labels/0.png'), cv2.IMREAD_UNCHANGED)
    picture = cv2.imread(str(tmp_path / 'out/overlays/0.jpg'))
    assert label.shape == picture.shape[:2] == SIZE
    assert picture.std() > 10


@pytest.mark.slow
def test_export_of_bands_with_preprocess(trained, tmp_path):
    pytest.importorskip('onnx')
    config, checkpoint, _ = trained
    output = succeed('export.py', config, checkpoint, tmp_path / 'a.onnx', '--shape',
                     '64x64', '--with-preprocess')
    assert 'largest difference' in output


@pytest.mark.slow
@pytest.mark.parametrize('option, words', [
    ('model.backbone.backbone_cfg.in_channels=4', 'in_channels: 4'),
    ('train_dataloader.dataset.pipeline.0.bands=4', '4 and '),
    ('train_dataloader.dataset.pipeline.0.dtype=uint8', '.tif has 5 bands of uint16'),
    ('model.data_preprocessor.mean=[1.,2.,3.]', 'mean: 3')])
def test_train_rejects_other_channels_before_it_starts(
        trained, tmp_path, option, words):
    line = error_of('train.py', trained[0], '--work-dir', tmp_path, '--max-iters', 2,
                    '--cfg-options', option)
    assert words in line
    assert not list(tmp_path.rglob('*.log'))  # the runner's


@pytest.mark.slow
def test_train_of_stock_loader_rejects_16_bits(trained, tmp_path):
    line = error_of(
        'train.py', ROOT / 'configs/stdc1_camvid.py', '--work-dir', tmp_path,
        '--cfg-options', *(f'{loader}_dataloader.dataset.{key}' for loader in (
            'train', 'val') for key in (f'data_root={trained[2]}', 'img_suffix=.tif',
                                        'pipeline.0.type=LoadImageFromFile')))
    assert '0.tif has 5 bands' in line and 'LoadSegImage(bands=5' in line


@pytest.mark.slow
@pytest.mark.parametrize('orientation', [3, 6])
def test_predict_writes_labels_of_the_turned_photograph(
        trained, tmp_path, orientation):
    stored = np.random.default_rng(1).integers(0, 255, (*SIZE, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / 'in').mkdir()
    Image.fromarray(stored).save(tmp_path / 'in/turned.png', exif=exif)
    Image.fromarray(turn(stored, orientation)).save(tmp_path / 'in/plain.png')
    config = ROOT / 'configs/stdc1_camvid.py'
    checkpoint = tmp_path / 'random.pth'
    from mmengine.config import Config
    from mmseg.registry import MODELS
    from torch import save
    save(dict(state_dict=MODELS.build(Config.fromfile(config).model).state_dict(),
              meta={}), checkpoint)
    succeed('predict.py', config, checkpoint, tmp_path / 'in', '--out',
            tmp_path / 'out')
    labels = [cv2.imread(str(tmp_path / f'out/labels/{name}.png'), -1)
              for name in ('turned', 'plain')]
    assert labels[0].shape == turn(stored, orientation).shape[:2]
    assert np.array_equal(*labels)
