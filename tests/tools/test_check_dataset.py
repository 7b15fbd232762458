"""Run tools/check_dataset.py and tools/train.py on binary masks and faulty files."""
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tool_process import run_tool

ROOT = Path(__file__).parents[2]

CONFIG = '''
_base_ = {base!r}
masks = dict(type='BaseSegDataset', data_root={data!r},
             metainfo=dict(classes=('ground', 'road'), palette=[[0, 0, 0], [9, 9, 9]]))
pipeline = [dict(type='LoadImageFromFile'), {loader}, dict(type='PackSegInputs')]
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                        dataset=dict(pipeline=pipeline, **masks))
val_dataloader = dict(num_workers=0, persistent_workers=False,
                      dataset=dict(pipeline=pipeline, **masks))
test_dataloader = val_dataloader
model = dict(decode_head=dict(num_classes=2), auxiliary_head=dict(num_classes=2))
'''
STOCK = "dict(type='LoadAnnotations')"
REMEDY = "dict(type='LoadSegAnnotations', values={0: 0, 255: 1})"


def write_masks(data, count=3, split='train'):
    """Write images with masks of 0 and 255, a quarter of it 255."""
    for kind in ('images', 'labels'):
        (data / kind / split).mkdir(parents=True)
    for i in range(count):
        mask = np.zeros((64, 64), np.uint8)
        mask[:32, :32] = 255
        Image.fromarray(mask).save(data / f'labels/{split}/{split}{i}.png')
        image = np.stack([mask // 2 + i] * 3, 2)
        Image.fromarray(image).save(data / f'images/{split}/{split}{i}.jpg')


@pytest.fixture
def data(tmp_path):
    for split in ('train', 'val'):
        write_masks(tmp_path / 'masks', split=split)
    return tmp_path / 'masks'


def config_of(data, loader=REMEDY, more=''):
    path = data.parent / 'config.py'
    path.write_text(CONFIG.format(base=str(ROOT / 'configs/encnet_r18_camvid.py'),
                                  data=str(data), loader=loader) + more)
    return path


def run(tool, *words):
    done = run_tool(tool, *words)
    assert 'Traceback' not in done.stderr, done.stderr
    return done


def lines_of(done, start):
    return [line for line in done.stderr.splitlines() if line.startswith(start)]


def test_train_refuses_binary_masks_and_follows_its_remedy(data, tmp_path):
    words = ['--work-dir', tmp_path / 'work', '--max-iters', 1]
    done = run('train.py', config_of(data, STOCK), *words)
    assert done.returncode == 1
    line, = lines_of(done, 'error: ')
    assert 'class 1 (road) occurs in none of the 3 labels' in line
    assert 'values 0 (75.00 %), 255 (25.00 %)' in line
    assert 'LoadSegAnnotations(values={0: 0, 255: 1})' in line
    done = run('train.py', config_of(data, REMEDY), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'occurs in none' not in done.stdout + done.stderr
    assert (tmp_path / 'work/iter_1.pth').is_file()


def test_check_dataset_refuses_binary_masks(data):
    done = run('check_dataset.py', config_of(data, STOCK), '--workers', 1)
    assert done.returncode == 1
    assert 'train_dataloader, BaseSegDataset: 3 images, with the faults below' in (
        done.stdout)
    line, = lines_of(done, 'error: ')
    assert 'train_dataloader: class 1 (road) occurs in none of the 3 labels' in line
    warning, = lines_of(done, 'warning: ')
    assert 'val_dataloader: class 1 (road) occurs in none' in warning
    more = "data_checks = dict(missing_classes='warn')\n"
    done = run('check_dataset.py', config_of(data, STOCK, more), '--workers', 1)
    assert done.returncode == 0 and len(lines_of(done, 'warning: ')) == 2, done.stderr


def test_check_dataset_reports_all_sets_as_json(data):
    write_masks(data, 5, 'test')
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(data / 'images/test/test0.jpg')
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(
        data / 'labels/test/test0.png')
    more = '''test_dataloader = dict(dataset=dict(
    data_prefix=dict(img_path='images/test', seg_map_path='labels/test'),
    pipeline=pipeline, **masks))
'''
    reports = []
    for workers in (1, 2):
        out = data / f'report{workers}.json'
        done = run('check_dataset.py', config_of(data, more=more), '--workers', workers,
                   '--out', out)
        assert done.returncode == 0, done.stdout + done.stderr
        assert 'test_dataloader, BaseSegDataset: 5 images and labels are' in done.stdout
        reports.append(json.loads(out.read_text()))
    assert reports[0] == reports[1]
    assert reports[0]['warnings'] == []
    loaders = reports[0]['loaders']
    assert list(loaders) == ['train_dataloader', 'val_dataloader', 'test_dataloader']
    road, total = 4 * 1024 + 48 * 64, 4 * 4096 + 48 * 64
    assert loaders['test_dataloader'] == dict(
        datasets=['BaseSegDataset'], images=5, labels=5, labels_read=5,
        sizes={'64 x 48': 1, '64 x 64': 4}, modes=dict(L=1, RGB=4),
        label_values={'0': total - road, '255': road},
        class_shares=dict(ground=pytest.approx(1 - road / total),
                          road=pytest.approx(road / total), ignored=0),
        faults=[], warnings=[])


def test_check_dataset_reads_equal_sets_once(data):
    done = run('check_dataset.py', config_of(data), '--workers', 1)
    assert done.returncode == 0, done.stderr
    assert 'test_dataloader: the same files as val_dataloader' in done.stdout


def test_check_dataset_needs_no_test_set(data):
    alone = ''.join(f'{name} = None\n' for name in (
        'val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader', 'test_cfg',
        'test_evaluator'))
    done = run('check_dataset.py', config_of(data, more=alone), '--workers', 1)
    assert done.returncode == 0, done.stderr
    assert 'train_dataloader, BaseSegDataset: 3 images and labels' in done.stdout


def test_check_dataset_counts_faults_of_one_kind(data, tmp_path):
    labels, images = data / 'labels/train', data / 'images/train'
    write_masks(tmp_path / 'more', 8)
    for kind in ('images', 'labels'):
        for path in (tmp_path / 'more' / kind / 'train').iterdir():
            path.rename(data / kind / 'train' / path.name)
    for i in (1, 2):
        (labels / f'train{i}.png').unlink()
    for i in (3, 4):
        Image.new('L', (5, 4)).save(labels / f'train{i}.png')
    (images / 'train5.jpg').write_bytes((images / 'train5.jpg').read_bytes()[:300])
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(labels / 'train6.png')
    done = run('check_dataset.py', config_of(data), '--workers', 2,
               '--out', tmp_path / 'report.json')
    assert done.returncode == 1
    lines = lines_of(done, 'error: ')
    assert len(lines) == 4, done.stderr
    for start, end in [
            ('2 labels that are missing, the first: ', f'{labels}/train1.png is'),
            ('2 labels of another size than their image, the first: ',
             f'label {labels}/train3.png is 5 x 4'),
            ('', f'image {images}/train5.jpg cannot be read'),
            ('', f'label {labels}/train6.png holds the values 7')]:
        start = f'error: train_dataloader: {start}'
        assert any(line.startswith(start) and end in line for line in lines)
    faults = json.loads((tmp_path / 'report.json').read_text())[
        'loaders']['train_dataloader']['faults']
    assert sorted(fault['count'] for fault in faults) == [1, 1, 2, 2]


def test_check_dataset_warns_of_images_in_two_sets(data):
    more = """val_dataloader = dict(dataset=dict(
    data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
    pipeline=pipeline, **masks))
"""
    done = run('check_dataset.py', config_of(data, more=more), '--workers', 1)
    assert any('val_dataloader has 3 images of train_dataloader' in line
               for line in lines_of(done, 'warning: ')), done.stderr


def test_check_dataset_reads_config_of_training_alone(data):
    more = '\n'.join(f'{split}_{part} = None' for split in ('val', 'test')
                     for part in ('dataloader', 'cfg', 'evaluator'))
    done = run('check_dataset.py', config_of(data, more=more), '--workers', 1)
    assert done.returncode == 0, done.stderr
    assert 'train_dataloader, BaseSegDataset: 3 images and labels are sound' in (
        done.stdout)
    assert 'val_dataloader' not in done.stdout


@pytest.mark.parametrize('words, message', [
    (['--workers', 0], '--workers must be at least 1, got 0'),
    (['--out', __file__ + '/report.json'], 'cannot be written'),
    (['--cfg-options', 'train_dataloader.dataset.colour=red'], 'colour'),
    (['--cfg-options', 'data_checks.missing_classes=no'], "is 'no'; accepted is"),
])
def test_check_dataset_refuses_in_one_line(data, words, message):
    done = run('check_dataset.py', config_of(data), *words)
    assert done.returncode == 1
    line, = lines_of(done, 'error: ')
    assert message in line
