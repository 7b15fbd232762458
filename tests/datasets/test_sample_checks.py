"""Errors in data are one line that names the file, the cause and the remedy."""
import numpy as np
import pytest
from input_errors import error_of
from mmcv.transforms import Compose
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmseg_encstdc.datasets import LoadSegAnnotations, LoadSegImage, sample_checks
from mmseg_encstdc.datasets.pair_reader import PairReader
from mmseg_encstdc.errors import InputError


def write_pair(folder, image_hw=(4, 6), label_hw=(4, 6), value=3):
    """Write an image and a label of one value; return the sample."""
    image, label = folder / 'a.jpg', folder / 'a.png'
    Image.fromarray(np.full((*image_hw, 3), 90, np.uint8)).save(image)
    Image.fromarray(np.full(label_hw, value, np.uint8)).save(label)
    return sample_of(image, label)


def sample_of(image, label, **kwargs):
    """Return the sample that BaseSegDataset gives for a pair."""
    return dict(img_path=str(image), seg_map_path=str(label), label_map=None,
                reduce_zero_label=False, seg_fields=[], **kwargs)


def load(sample, num_classes=None, **kwargs):
    """Load a pair as a training pipeline does."""
    return Compose([
        LoadSegImage(), LoadSegAnnotations(num_classes, **kwargs)])(sample)


def read(sample):
    """Read a pair as the checks before training do."""
    dataset = BaseSegDataset(metainfo=dict(classes=tuple('abcd')), lazy_init=True)
    return PairReader(dataset, []).read(sample)


# --- Folders and lists -------------------------------------------------------


def test_check_folders_accepts_existing_and_empty_names(tmp_path):
    folders = [str(tmp_path), '', None]
    assert sample_checks.check_folders('CamVidDataset', folders) is None


@pytest.mark.parametrize('kind', sorted(sample_checks.SOURCES))
def test_check_folders_names_missing_folder_and_source(
        tmp_path, kind):
    message = error_of(sample_checks.check_folders, kind, [str(tmp_path / 'none')])
    assert message == (f'{kind}: {tmp_path}/none does not exist; '
                       f'{sample_checks.SOURCES[kind]}')


def test_sources_cover_every_data_set_of_the_configs(root):
    from mmengine.config import Config

    from mmseg_encstdc.engine import datasets_of
    types = set()
    for path in sorted((root / 'configs').glob('*.py')):
        cfg = Config.fromfile(path)
        for loader in ('train_dataloader', 'val_dataloader'):
            types |= {d['type'] for d in datasets_of(cfg[loader].dataset)}
    assert types and types <= set(sample_checks.SOURCES)


def test_check_folders_of_custom_data_set_names_keys(tmp_path):
    message = error_of(sample_checks.check_folders, 'Mine', [str(tmp_path / 'none')])
    assert 'set data_root and data_prefix' in message


def test_check_pairs_exist_counts_samples(tmp_path):
    sample = write_pair(tmp_path)
    unlabelled = dict(img_path=sample['img_path'])
    assert sample_checks.check_pairs_exist('Mine', [sample, unlabelled]) == 2


@pytest.mark.parametrize('kind, name, remedy', [
    ('image', 'a.jpg', 'each line of ann_file is the name of an image'),
    ('label', 'a.png', 'add it or remove the image')])
def test_check_pairs_exist_names_missing_file(tmp_path, kind, name, remedy):
    sample = write_pair(tmp_path)
    (tmp_path / name).unlink()
    message = error_of(sample_checks.check_pairs_exist, 'CamVidDataset', [sample])
    assert f'{kind} {tmp_path}/{name} is missing' in message
    assert remedy in message


def test_check_pairs_exist_rejects_empty_data_set():
    message = error_of(sample_checks.check_pairs_exist, 'CamVidDataset', [])
    assert 'no images found' in message
    assert sample_checks.SOURCES['CamVidDataset'] in message
    assert 'img_suffix' in message


# --- Reading a pair ----------------------------------------------------------


def test_read_and_load_accept_valid_pair(tmp_path):
    sample = write_pair(tmp_path)
    assert read(sample).size == (4, 6)
    loaded = load(sample, num_classes=4)
    assert loaded['gt_seg_map'].tolist() == [[3] * 6] * 4
    assert loaded['ori_shape'] == (4, 6)


@pytest.mark.parametrize('reads', [read, load])
def test_read_and_load_reject_other_label_size(tmp_path, reads):
    sample = write_pair(tmp_path, (4, 6), (4, 5))
    message = error_of(reads, sample)
    assert f'label {tmp_path}/a.png is 5 x 4' in message
    assert f'image {tmp_path}/a.jpg is 6 x 4' in message
    assert 'resize labels with nearest' in message


@pytest.mark.parametrize('reads', [read, load])
@pytest.mark.parametrize('kind, name', [('image', 'a.jpg'), ('label', 'a.png')])
@pytest.mark.parametrize('content', [b'', b'not a picture'])
def test_read_and_load_reject_other_files(tmp_path, reads, kind, name, content):
    sample = write_pair(tmp_path)
    (tmp_path / name).write_bytes(content)
    message = error_of(reads, sample)
    assert f'{kind} {tmp_path}/{name} cannot be read' in message
    assert 'restore the file or remove it' in message


@pytest.mark.parametrize('reads', [read, load])
@pytest.mark.parametrize('kind, name', [('image', 'a.jpg'), ('label', 'a.png')])
def test_read_and_load_name_missing_file(tmp_path, reads, kind, name):
    sample = write_pair(tmp_path)
    (tmp_path / name).unlink()
    message = error_of(reads, sample)
    assert f'{kind} {tmp_path}/{name} cannot be read' in message


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_read_rejects_truncated_file(tmp_path, name):
    sample = write_pair(tmp_path, (64, 64), (64, 64))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-20])
    assert f'{path} cannot be read' in error_of(read, sample)


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_read_raises_only_input_error_for_damaged_bytes(tmp_path, name):
    sample, path = write_pair(tmp_path), tmp_path / name
    intact = path.read_bytes()
    found = 0
    for i in range(len(intact)):
        path.write_bytes(bytes([*intact[:i], intact[i] ^ 0xff, *intact[i + 1:]]))
        try:
            read(sample)
        except InputError as error:
            assert str(path) in str(error) and '\n' not in str(error)
            found += 1
    assert found


# --- Values ------------------------------------------------------------------


def test_check_label_values_accepts_classes_and_ignore_index():
    label = np.array([[0, 10, 255]], np.uint8)
    assert sample_checks.check_label_values('a.png', label, 11) is None


def test_check_label_values_names_ids_out_of_range():
    label = np.array([[0, 10, 255], [40, 11, 40]], np.uint8)
    message = error_of(sample_checks.check_label_values, 'a.png', label, 11)
    assert 'label a.png holds the values 11, 40;' in message
    assert 'accepted are 0 to 10 and 255 (ignore)' in message
    assert 'map the values with LoadSegAnnotations(values=...)' in message


def test_check_label_values_names_at_most_ten_ids():
    label = np.arange(100, dtype=np.uint8)
    message = error_of(sample_checks.check_label_values, 'a.png', label, 50)
    assert 'values 50, 51, 52, 53, 54, 55, 56, 57, 58, 59; accepted' in message


def test_check_label_values_uses_ignore_index():
    label = np.array([[7, 3]], np.uint8)
    assert sample_checks.check_label_values('a.png', label, 4, ignore_index=7) is None
    label[0, 0] = 255
    message = error_of(sample_checks.check_label_values, 'a.png', label, 4, 7)
    assert 'values 255; accepted are 0 to 3 and 7 (ignore)' in message


def test_load_rejects_ids_out_of_range(tmp_path):
    message = error_of(load, write_pair(tmp_path, value=4), num_classes=4)
    assert f'label {tmp_path}/a.png holds the values 4; accepted are 0 to 3' in message


def test_load_rejects_16_bit_label(tmp_path):
    sample = write_pair(tmp_path)
    label = np.full((4, 6), 256 + 3, np.uint16)
    Image.fromarray(label).save(tmp_path / 'a.png')
    assert str(tmp_path / 'a.png') in error_of(load, sample, num_classes=4)


def test_load_rejects_label_of_three_channels(tmp_path):
    sample = write_pair(tmp_path)
    colours = np.zeros((4, 6, 3), np.uint8)  # black, "class 0", in any channel
    Image.fromarray(colours).save(tmp_path / 'a.png')
    assert str(tmp_path / 'a.png') in error_of(load, sample, num_classes=4)


@pytest.mark.parametrize('size', [(1, 1), (1, 5), (5, 1)])
def test_load_keeps_sides_of_one_pixel(tmp_path, size):
    image, label = tmp_path / 'a.jpg', tmp_path / 'b.png'
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(image)
    Image.fromarray(np.zeros(size, np.uint8)).save(label)
    sample = sample_of(image, label, ori_shape=size)
    read(sample)
    loaded = LoadSegAnnotations(num_classes=3)(sample)
    assert loaded['gt_seg_map'].shape == size


def test_read_applies_exif_orientation(tmp_path):
    image, label = tmp_path / 'a.jpg', tmp_path / 'b.png'
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(image, exif=exif)
    Image.fromarray(np.zeros((8, 4), np.uint8)).save(label)
    assert read(sample_of(image, label)).size == (8, 4)
