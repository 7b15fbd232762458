"""Errors in data are one line: the file, what is wrong, and the remedy."""
import numpy as np
import pytest
from mmcv.transforms import Compose
from PIL import Image

from mmseg_encstdc.datasets import LoadSegAnnotations, LoadSegImage, sample_checks
from mmseg_encstdc.errors import InputError


def write_pair(folder, image_hw=(4, 6), label_hw=(4, 6), value=3):
    """An image and a label of one value; a sample as data sets give it."""
    image, label = folder / 'a.jpg', folder / 'a.png'
    Image.fromarray(np.full((*image_hw, 3), 90, np.uint8)).save(image)
    Image.fromarray(np.full(label_hw, value, np.uint8)).save(label)
    return sample_of(image, label)


def sample_of(image, label, **kwargs):
    """What BaseSegDataset knows of a pair."""
    return dict(img_path=str(image), seg_map_path=str(label), label_map=None,
                reduce_zero_label=False, seg_fields=[], **kwargs)


def load(sample, num_classes=None, **kwargs):
    """The pair as a training pipeline loads it."""
    return Compose([
        LoadSegImage(), LoadSegAnnotations(num_classes, **kwargs)])(sample)


def error_of(function, *args, **kwargs):
    """The one line of the InputError that a call raises."""
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert '\n' not in message
    return message


# --- Folders and lists -------------------------------------------------------


def test_folders_that_exist_or_are_not_given_pass(tmp_path):
    folders = [str(tmp_path), '', None]
    assert sample_checks.check_folders('CamVidDataset', folders) is None


@pytest.mark.parametrize('kind', sorted(sample_checks.SOURCES))
def test_a_missing_folder_is_named_with_where_its_data_set_comes_from(
        tmp_path, kind):
    message = error_of(sample_checks.check_folders, kind, [str(tmp_path / 'none')])
    assert message == (f'{kind}: {tmp_path}/none does not exist; '
                       f'{sample_checks.SOURCES[kind]}')


def test_every_data_set_of_the_configs_has_a_source(root):
    from mmengine.config import Config

    from mmseg_encstdc.engine import datasets_of
    types = set()
    for path in sorted((root / 'configs').glob('*.py')):
        cfg = Config.fromfile(path)
        for loader in ('train_dataloader', 'val_dataloader'):
            types |= {d['type'] for d in datasets_of(cfg[loader].dataset)}
    assert types and types <= set(sample_checks.SOURCES)


def test_the_remedy_for_a_data_set_of_ones_own_is_to_set_its_folders(tmp_path):
    message = error_of(sample_checks.check_folders, 'Mine', [str(tmp_path / 'none')])
    assert 'set data_root and data_prefix' in message


def test_samples_whose_files_exist_are_counted(tmp_path):
    sample = write_pair(tmp_path)
    unlabelled = dict(img_path=sample['img_path'])
    assert sample_checks.check_pairs_exist('Mine', [sample, unlabelled]) == 2


@pytest.mark.parametrize('kind, name', [('image', 'a.jpg'), ('label', 'a.png')])
def test_a_missing_file_of_a_pair_is_named(tmp_path, kind, name):
    sample = write_pair(tmp_path)
    (tmp_path / name).unlink()
    message = error_of(sample_checks.check_pairs_exist, 'CamVidDataset', [sample])
    assert f'{kind} {tmp_path}/{name} is missing' in message
    assert 'add it or remove the image' in message


def test_an_empty_folder_says_where_images_come_from_and_what_selects_them():
    message = error_of(sample_checks.check_pairs_exist, 'CamVidDataset', [])
    assert 'no images found' in message
    assert sample_checks.SOURCES['CamVidDataset'] in message
    assert 'img_suffix' in message


# --- Reading a pair ----------------------------------------------------------


def test_a_sound_pair_passes_and_loads(tmp_path):
    sample = write_pair(tmp_path)
    assert sample_checks.check_pair(sample) is None
    loaded = load(sample, num_classes=4)
    assert loaded['gt_seg_map'].tolist() == [[3] * 6] * 4
    assert loaded['ori_shape'] == (4, 6)


@pytest.mark.parametrize('read', [sample_checks.check_pair, load])
def test_a_label_of_another_size_is_named_with_both_sizes(tmp_path, read):
    sample = write_pair(tmp_path, (4, 6), (4, 5))
    message = error_of(read, sample)
    assert f'label {tmp_path}/a.png is 5 x 4' in message
    assert f'image {tmp_path}/a.jpg is 6 x 4' in message
    assert 'resize labels with nearest' in message


@pytest.mark.parametrize('read', [sample_checks.check_pair, load])
@pytest.mark.parametrize('kind, name', [('image', 'a.jpg'), ('label', 'a.png')])
@pytest.mark.parametrize('content', [b'', b'not a picture'])
def test_a_file_that_is_no_picture_is_named(tmp_path, read, kind, name, content):
    sample = write_pair(tmp_path)
    (tmp_path / name).write_bytes(content)
    message = error_of(read, sample)
    assert f'{kind} {tmp_path}/{name} cannot be read' in message
    assert 'restore the file or remove it' in message


@pytest.mark.parametrize('read', [sample_checks.check_pair, load])
@pytest.mark.parametrize('kind, name', [('image', 'a.jpg'), ('label', 'a.png')])
def test_a_file_that_is_gone_is_named(tmp_path, read, kind, name):
    sample = write_pair(tmp_path)
    (tmp_path / name).unlink()
    message = error_of(read, sample)
    assert f'{kind} {tmp_path}/{name} cannot be read' in message


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_a_file_that_ends_too_early_is_found(tmp_path, name):
    sample = write_pair(tmp_path, (64, 64), (64, 64))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-20])
    assert f'{path} cannot be read' in error_of(sample_checks.check_pair, sample)


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_no_damaged_byte_ends_in_anything_but_an_input_error(tmp_path, name):
    sample, path = write_pair(tmp_path), tmp_path / name
    sound = path.read_bytes()
    found = 0
    for i in range(len(sound)):
        damaged = bytes([*sound[:i], sound[i] ^ 0xff, *sound[i + 1:]])
        path.write_bytes(damaged)
        try:
            sample_checks.check_pair(sample)
        except InputError as error:
            assert str(path) in str(error) and '\n' not in str(error)
            found += 1
    assert found


# --- Values ------------------------------------------------------------------


def test_values_below_the_number_of_classes_and_ignore_pass():
    label = np.array([[0, 10, 255]], np.uint8)
    assert sample_checks.check_label_values('a.png', label, 11) is None


def test_values_out_of_range_are_named_with_the_accepted_ones():
    label = np.array([[0, 10, 255], [40, 11, 40]], np.uint8)
    message = error_of(sample_checks.check_label_values, 'a.png', label, 11)
    assert 'label a.png holds the values 11, 40;' in message
    assert 'accepted are 0 to 10 and 255 (ignore)' in message
    assert 'Map the file or set num_classes' in message


def test_at_most_ten_values_are_named():
    label = np.arange(100, dtype=np.uint8)
    message = error_of(sample_checks.check_label_values, 'a.png', label, 50)
    assert 'values 50, 51, 52, 53, 54, 55, 56, 57, 58, 59; accepted' in message


def test_another_ignore_index_is_accepted_instead_of_255():
    label = np.array([[7, 3]], np.uint8)
    assert sample_checks.check_label_values('a.png', label, 4, ignore_index=7) is None
    label[0, 0] = 255
    message = error_of(sample_checks.check_label_values, 'a.png', label, 4, 7)
    assert 'values 255; accepted are 0 to 3 and 7 (ignore)' in message


def test_loading_a_label_with_a_value_out_of_range_names_the_file(tmp_path):
    message = error_of(load, write_pair(tmp_path, value=4), num_classes=4)
    assert f'label {tmp_path}/a.png holds the values 4; accepted are 0 to 3' in message


def test_a_16_bit_label_out_of_range_is_not_taken_modulo_256(tmp_path):
    sample = write_pair(tmp_path)
    label = np.full((4, 6), 256 + 3, np.uint16)
    Image.fromarray(label).save(tmp_path / 'a.png')
    assert str(tmp_path / 'a.png') in error_of(load, sample, num_classes=4)


def test_a_label_of_three_channels_is_not_taken_for_class_ids(tmp_path):
    sample = write_pair(tmp_path)
    colours = np.zeros((4, 6, 3), np.uint8)  # black, "class 0", in any channel
    Image.fromarray(colours).save(tmp_path / 'a.png')
    assert str(tmp_path / 'a.png') in error_of(load, sample, num_classes=4)


@pytest.mark.parametrize('size', [(1, 1), (1, 5), (5, 1)])
def test_sides_of_one_pixel_are_kept(tmp_path, size):
    image, label = tmp_path / 'a.jpg', tmp_path / 'b.png'
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(image)
    Image.fromarray(np.zeros(size, np.uint8)).save(label)
    sample = dict(img_path=str(image), seg_map_path=str(label), label_map=None,
                  reduce_zero_label=False, seg_fields=[], ori_shape=size)
    sample_checks.check_pair(sample)
    loaded = LoadSegAnnotations(num_classes=3)(sample)
    assert loaded['gt_seg_map'].shape == size


def test_a_photograph_that_was_turned_is_compared_as_it_is_loaded(tmp_path):
    image, label = tmp_path / 'a.jpg', tmp_path / 'b.png'
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: a quarter turn
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(image, exif=turned)
    Image.fromarray(np.zeros((8, 4), np.uint8)).save(label)
    sample = dict(img_path=str(image), seg_map_path=str(label))
    assert sample_checks.check_pair(sample) is None
