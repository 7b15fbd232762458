"""Test that a training leaves out images that cannot be read, up to a limit."""
import json

import numpy as np
import pytest
from PIL import Image
from tool_process import ROOT, run_tool

from mmseg_encstdc.datasets import SkipBadImages
from mmseg_encstdc.datasets.sample_checks import SampleError

CONFIG = '''
_base_ = {base!r}
data = dict(num_workers={workers}, persistent_workers=False, dataset=dict(
    type='BaseSegDataset', data_root={data!r},
    metainfo=dict(classes=('a', 'b'), palette=[[0, 0, 0], [9, 9, 9]])))
train_dataloader = dict(batch_size=2, **data)
val_dataloader = data
test_dataloader = data
train_pipeline = [dict(type='LoadSegImage'), dict(type='LoadSegAnnotations'),
                  dict(type='PackSegInputs')]
train_dataloader.update(dataset=dict(pipeline=train_pipeline, **data['dataset']))
model = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    decode_head=dict(in_channels=[16, 32, 64], channels=16, num_codes=4, num_classes=2),
    auxiliary_head=dict(in_channels=32, channels=8, num_classes=2))
default_hooks = dict(logger=dict(interval=1))
max_bad_images = {limit}
'''


@pytest.fixture
def data(tmp_path):
    """Write six pairs of which two images are damaged."""
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (tmp_path / kind / split).mkdir(parents=True)
        for i in range(6):
            label = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64) % 2
            Image.fromarray(label).save(tmp_path / f'labels/{split}/é {i}.png')
            Image.fromarray(np.stack([label * 99] * 3, 2)).save(
                tmp_path / f'images/{split}/é {i}.jpg')
    whole = (tmp_path / 'images/train/é 2.jpg').read_bytes()
    (tmp_path / 'images/train/é 2.jpg').write_bytes(whole[:len(whole) // 2])
    (tmp_path / 'images/train/é 5.jpg').write_bytes(b'')
    return tmp_path


def train(data, limit, *words, workers=0):
    """Train six iterations of two images; return the finished process."""
    config = data / 'config.py'
    config.write_text(CONFIG.format(
        base=str(ROOT / 'configs/encnet_r18_camvid.py'), data=str(data), limit=limit,
        workers=workers))
    done = run_tool('train.py', config, '--work-dir', data / 'work', '--max-iters', 6,
                    *words)
    assert 'Traceback' not in done.stderr, done.stderr
    return done


def logged(data):
    """Return the records of the log of the last training."""
    path = sorted(data.glob('work/*/vis_data/scalars.json'))[-1]
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_damaged_images_end_a_training_by_name(data):
    done = train(data, 0)
    assert done.returncode == 1
    assert 'é 5.jpg cannot be read' in done.stderr or 'é 2.jpg cannot be' in done.stderr


@pytest.mark.parametrize('workers', [0, 2])
def test_training_leaves_bad_images_out_and_counts_them(data, workers):
    done = train(data, 2, workers=workers)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert 'left out, 2 of 2 images that may be: image' in output
    assert logged(data)[-1].get('bad_images', logged(data)[-2].get('bad_images')) == 2
    done = train(data, 1, workers=workers)
    assert done.returncode == 1 and 'cannot be read' in done.stderr


def test_skip_bad_images_puts_the_next_image_in_the_place():
    dataset = SkipBadImages(Vanishing())
    assert dataset[1].metainfo == dict(bad_images={'1.jpg': 'image 1.jpg is gone'})
    assert len(dataset) == 3 and dataset.metainfo == dict(classes=('a', ))


class Sample(dict):
    """A sample that is its own ``data_samples``."""

    def __init__(self):
        super().__init__(data_samples=self)
        self.metainfo = {}

    def set_metainfo(self, values):
        self.metainfo.update(values)


class Vanishing:
    """A data set of three, whose second image is gone."""
    metainfo = dict(classes=('a', ))
    present = (0, 2)

    def __len__(self):
        return 3

    def get_data_info(self, index):
        return dict(img_path=f'{index}.jpg')

    def __getitem__(self, index):
        if index not in self.present:
            raise SampleError(f'image {index}.jpg is gone')
        return Sample()


def test_skip_bad_images_raises_where_no_image_can_be_read():
    dataset = SkipBadImages(Vanishing())
    dataset.dataset.present = ()
    with pytest.raises(SampleError, match='image 0.jpg is gone'):
        dataset[1]


@pytest.mark.parametrize('limit', [-1, 1.5, "'all'", True])
def test_max_bad_images_is_a_whole_number(data, limit):
    done = train(data, limit)
    assert done.returncode == 1
    assert 'max_bad_images is' in done.stderr and 'whole number of 0' in done.stderr
