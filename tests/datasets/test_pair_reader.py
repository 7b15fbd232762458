"""The checks read files as the pipeline of the config does."""
import io
from pathlib import Path

import mmcv.image.io
import mmseg
import numpy as np
import pytest
from input_errors import error_of
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.fileio import BaseStorageBackend, register_backend
from mmseg.datasets import BaseSegDataset
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmseg_encstdc.datasets import LoadSegAnnotations
from mmseg_encstdc.datasets.pair_reader import (
    PairReader,
    find_loaders,
    is_label_loader,
)
from mmseg_encstdc.engine import datasets_of

STOCK = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]


@TRANSFORMS.register_module()
class LoadArray(BaseTransform):
    """Load an image of seven bands from a file of NumPy."""

    def transform(self, results):
        results['img'] = np.load(results['img_path'])
        results['ori_shape'] = results['img_shape'] = results['img'].shape[:2]
        return results


@TRANSFORMS.register_module()
class HalveIds(BaseTransform):
    """Map the ids of a label, as a transform of a user does."""

    def transform(self, results):
        results['gt_seg_map'] = results['gt_seg_map'] // 2
        return results


@register_backend('attic')
class AtticBackend(BaseStorageBackend):
    """Hold files in memory."""

    files = {}

    def get(self, filepath):
        return self.files[filepath]

    def get_text(self, filepath):
        return self.files[filepath].decode()


def data_set(classes='abcd', **arguments):
    return BaseSegDataset(metainfo=dict(classes=tuple(classes)), lazy_init=True,
                          **arguments)


def sample_of(folder, image=None, label=None, **more):
    """Write an image and a label as PNG; return their sample."""
    image = np.zeros((4, 6, 3), np.uint8) if image is None else image
    label = np.full((4, 6), 3, np.uint8) if label is None else label
    for name, array in (('a.png', image), ('b.png', label)):
        array = array if isinstance(array, Image.Image) else Image.fromarray(array)
        array.save(folder / name)
    return dict(img_path=str(folder / 'a.png'), seg_map_path=str(folder / 'b.png'),
                label_map=None, reduce_zero_label=False, seg_fields=[], **more)


# --- Which transforms load ---------------------------------------------------


def test_find_loaders_skips_other_transforms():
    types = ['Resize', 'LoadAnnotations', 'HalveIds', 'PackSegInputs', 'HalveIds']
    pipeline = [STOCK[0], *(dict(type=name) for name in types)]
    assert [step['type'] for step in find_loaders(pipeline)] == [
        'LoadImageFromFile', 'LoadAnnotations', 'HalveIds']


def test_find_loaders_searches_augmented_tests():
    pipeline = [STOCK[0], dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale_factor=1.)], [STOCK[1]],
        [dict(type='PackSegInputs')]])]
    assert list(find_loaders(pipeline)) == STOCK


def test_reader_takes_arguments_of_pipeline(tmp_path):
    pipeline = [STOCK[0], dict(type='LoadSegAnnotations', values={3: 0, 5: 1})]
    reader = PairReader(data_set('ab'), pipeline)
    label = np.full((4, 6), 3, np.uint8)
    label[0, 0] = 5
    pair = reader.read(sample_of(tmp_path, label=label))
    assert pair.raw == {3: 23, 5: 1} and pair.classes == {0: 23, 1: 1}


def test_reader_counts_raw_ids_and_classes(tmp_path):
    reader = PairReader(data_set('abc', reduce_zero_label=True), STOCK)
    sample = sample_of(tmp_path, label=np.array([[0, 1, 1], [3, 3, 3]], np.uint8),
                       image=np.zeros((2, 3, 3), np.uint8))
    sample['reduce_zero_label'] = True
    for _ in range(2):  # reading changes nothing
        pair = reader.read(sample)
        assert pair.raw == {0: 1, 1: 2, 3: 3} and pair.classes == {255: 1, 0: 2, 2: 3}
    assert sample['seg_fields'] == []


def test_reader_runs_custom_transform_after_loader(tmp_path):
    pipeline = [*STOCK, dict(type='HalveIds')]
    label = np.full((4, 6), 7, np.uint8)
    reader = PairReader(data_set(), pipeline)
    pair = reader.read(sample_of(tmp_path, label=label))
    assert pair.classes == {3: 24}
    assert not reader.exact and PairReader(data_set(), STOCK).exact


# --- Files that a loader of ours would refuse or accept falsely --------------


def test_reader_reads_images_of_custom_loader(tmp_path):
    sample = sample_of(tmp_path)
    np.save(tmp_path / 'a.npy', np.zeros((4, 6, 7), np.uint16))
    sample['img_path'] = str(tmp_path / 'a.npy')
    custom = PairReader(data_set(), [dict(type='LoadArray'), STOCK[1]])
    assert custom.read(sample).size == (4, 6)
    stock = PairReader(data_set(), STOCK)
    assert 'a.npy cannot be read' in error_of(stock.read, sample)


def test_reader_names_file_for_any_error_of_custom_loader(tmp_path):
    reader = PairReader(data_set(), [dict(type='LoadArray'), STOCK[1]])
    message = error_of(reader.read, sample_of(tmp_path))
    assert message.startswith(f'image {tmp_path}/a.png cannot be read (LoadArray: ')


def test_reader_uses_backend_of_image_loader(tmp_path, monkeypatch):
    class Tifffile:
        @staticmethod
        def imread(file):
            return np.zeros((4, 6, 12), np.uint16)
    monkeypatch.setattr(mmcv.image.io, 'tifffile', Tifffile)
    sample = sample_of(tmp_path)
    (tmp_path / 'a.png').write_bytes(b'twelve bands that Pillow does not know')
    pipeline = [dict(type='LoadSegImage', imdecode_backend='tifffile',
                     color_type='unchanged'), STOCK[1]]
    assert PairReader(data_set(), pipeline).read(sample).size == (4, 6)


def test_reader_accepts_images_too_large_for_pillow(tmp_path, monkeypatch):
    sample = sample_of(tmp_path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    pipeline = [STOCK[0], dict(type='LoadAnnotations', imdecode_backend='cv2')]
    assert PairReader(data_set(), pipeline).read(sample).size == (4, 6)


def test_reader_compares_size_that_the_loader_gives(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    sample = sample_of(tmp_path)
    Image.fromarray(np.zeros((6, 4, 3), np.uint8)).save(tmp_path / 'a.jpg', exif=exif)
    sample['img_path'] = str(tmp_path / 'a.jpg')
    assert PairReader(data_set(), STOCK).read(sample).size == (4, 6)
    as_stored = [dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
                 STOCK[1]]
    assert 'is 6 x 4 but its image' in error_of(
        PairReader(data_set(), as_stored).read, sample)


def test_reader_rejects_palette_that_opencv_expands(tmp_path):
    label = Image.fromarray(np.full((4, 6), 3, np.uint8)).convert('P')
    label.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0, 0, 200, 0])
    label.putdata([3] * 24)
    sample = sample_of(tmp_path, label=label)
    assert PairReader(data_set(), STOCK).read(sample).classes == {3: 24}
    pipeline = [STOCK[0], dict(type='LoadAnnotations', imdecode_backend='cv2')]
    message = error_of(PairReader(data_set(), pipeline).read, sample)
    assert 'b.png is loaded as an array of shape (4, 6, 3)' in message
    pipeline[1]['imdecode_backend'] = 'pillow'  # the remedy
    assert PairReader(data_set(), pipeline).read(sample).classes == {3: 24}


def test_reader_names_loader_that_keeps_sides_of_one_pixel(tmp_path):
    sample = sample_of(tmp_path, np.zeros((1, 6, 3), np.uint8),
                       np.full((1, 6), 3, np.uint8))
    message = error_of(PairReader(data_set(), STOCK).read, sample)
    assert message.endswith('load it with LoadSegAnnotations')
    pipeline = [STOCK[0], dict(type='LoadSegAnnotations')]
    assert PairReader(data_set(), pipeline).read(sample).classes == {3: 6}


def test_reader_accepts_16_bit_labels_of_small_ids_with_stock_loader(tmp_path):
    sample = sample_of(tmp_path, label=np.full((4, 6), 3, np.uint16))
    assert PairReader(data_set(), STOCK).read(sample).classes == {3: 24}
    Image.fromarray(np.full((4, 6), 259, np.uint16)).save(tmp_path / 'b.png')
    assert 'holds the value 259' in error_of(PairReader(data_set(), STOCK).read, sample)


def test_reader_takes_ignore_index_of_label_loader(tmp_path):
    sample = sample_of(tmp_path, label=np.full((4, 6), 9, np.uint8))
    pipeline = [STOCK[0], dict(type='LoadSegAnnotations', ignore_index=9)]
    assert PairReader(data_set(), pipeline).read(sample).classes == {9: 24}
    message = error_of(PairReader(data_set(), STOCK).read, sample)
    assert 'holds the values 9; accepted are 0 to 3 and 255 (ignore)' in message
    assert PairReader(data_set(), STOCK, {9}).read(sample).classes == {9: 24}


def test_reader_names_zero_label_that_disagrees():
    pipeline = [STOCK[0], dict(type='LoadAnnotations', reduce_zero_label=True)]
    message = error_of(PairReader, data_set(), pipeline)
    assert message == ('reduce_zero_label is True in LoadAnnotations and False in '
                       'BaseSegDataset; set it in the data set alone')
    assert PairReader(data_set(reduce_zero_label=True), STOCK).steps


def test_reader_names_argument_that_a_loader_does_not_have():
    message = error_of(PairReader, data_set(), [dict(type='LoadSegImage', colour='x')])
    assert 'transform LoadSegImage' in message and 'colour' in message


def test_reader_reads_files_that_are_not_on_a_disk(tmp_path):
    sample = sample_of(tmp_path)
    for key in ('img_path', 'seg_map_path'):
        buffer = io.BytesIO((tmp_path / sample[key]).read_bytes())
        sample[key] = f'attic/{key}'
        AtticBackend.files[sample[key]] = buffer.getvalue()
    attic = dict(backend='attic')
    pipeline = [{**step, 'backend_args': attic} for step in STOCK]
    reader = PairReader(data_set(), pipeline)
    assert reader.read(sample).classes == {3: 24} and not reader.local


def test_reader_skips_labels_that_the_pipeline_does_not_load(tmp_path):
    sample = sample_of(tmp_path)
    reader = PairReader(data_set(), STOCK[:1])
    assert reader.needed([sample]) == [{**sample, 'seg_map_path': None}]
    (tmp_path / 'b.png').unlink()
    assert reader.read(reader.needed([sample])[0]) == ((4, 6), None, None)
    assert isinstance(PairReader(data_set(), []).label_loader, LoadSegAnnotations)


STOCK_DATA = sorted(
    (Path(mmseg.__file__).parent / '.mim/configs/_base_/datasets').glob('*.py'))


@pytest.mark.skipif(not STOCK_DATA, reason='mmsegmentation was installed without them')
def test_find_loaders_finds_image_and_label_of_stock_data_sets():
    for path in STOCK_DATA:
        config = Config.fromfile(path)
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            for dataset in datasets_of(config[loader].dataset):
                image, label = find_loaders(dataset.pipeline)
                assert not is_label_loader(TRANSFORMS.get(image.type)), path
                assert is_label_loader(TRANSFORMS.get(label.type)), path
