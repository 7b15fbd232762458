"""Test that a training leaves out images that cannot be read, up to a limit."""
import json

import pytest
from small_run import write_run
from tool_process import run_tool

from mmseg_encstdc.datasets import SkipBadImages
from mmseg_encstdc.datasets.sample_checks import SampleError


@pytest.fixture
def data(tmp_path):
    """Write the config and the six pairs of a training; two images are damaged."""
    write_run(tmp_path, images=6)
    images, labels = (tmp_path / 'data' / kind / 'train' for kind in
                      ('images', 'labels'))
    for folder, suffix in ((images, '.jpg'), (labels, '.png')):
        for i in range(6):
            (folder / f'train{i}{suffix}').rename(folder / f'é {i}{suffix}')
    whole = (images / 'é 2.jpg').read_bytes()
    (images / 'é 2.jpg').write_bytes(whole[:len(whole) // 2])
    (images / 'é 5.jpg').write_bytes(b'')
    return tmp_path


def train(data, limit, workers=0):
    """Train six iterations of two images; return the finished process."""
    done = run_tool(
        'train.py', data / 'small.py', '--work-dir', data / 'work', '--cfg-options',
        'train_cfg.max_iters=6', 'train_cfg.val_interval=6',
        f'max_bad_images={limit}', f'train_dataloader.num_workers={workers}')
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
