"""Test LoadSegAnnotations(values=...), which maps the ids of label files."""
import numpy as np
import pytest
from PIL import Image

from mmseg_encstdc.datasets import LoadSegAnnotations
from mmseg_encstdc.datasets.label_values import count_values
from mmseg_encstdc.errors import InputError


def load(path, label, label_map=None, reduce_zero_label=False, **arguments):
    """Write a label and load it."""
    Image.fromarray(np.array(label, np.uint8)).save(path)
    sample = dict(img_path='a.jpg', seg_map_path=str(path), label_map=label_map,
                  reduce_zero_label=reduce_zero_label, seg_fields=[])
    loaded = LoadSegAnnotations(**arguments)(sample)
    assert loaded['label_map'] == label_map and loaded['seg_fields'] == ['gt_seg_map']
    assert loaded['gt_seg_map'].dtype == np.uint8
    return loaded['gt_seg_map'].tolist()


def test_values_map_ids_of_file(tmp_path):
    label = [[0, 255, 255], [7, 0, 255]]
    values = {0: 0, 255: 1, 7: 255}
    assert load(tmp_path / 'a.png', label, values=values, num_classes=2) == [
        [0, 1, 1], [255, 0, 1]]


def test_values_precede_label_map(tmp_path):
    assert load(tmp_path / 'a.png', [[5, 6], [6, 6]], {0: 1, 1: 0},
                values={5: 0, 6: 1}) == [[1, 0], [0, 0]]


def test_values_keep_sides_of_one_pixel(tmp_path):
    assert load(tmp_path / 'a.png', [[9, 4]], values={9: 0, 4: 1}) == [[0, 1]]


def test_values_accept_keys_of_json(tmp_path):
    assert load(tmp_path / 'a.png', [[9, 4], [4, 4]], values={'9': 0, '4': 1}) == [
        [0, 1], [1, 1]]


def test_values_name_ids_that_are_not_in_the_map(tmp_path):
    with pytest.raises(InputError) as caught:
        load(tmp_path / 'a.png', [[0, 128], [3, 255]], values={0: 0, 255: 1})
    message = str(caught.value)
    assert f'label {tmp_path}/a.png holds the values 3, 128,' in message
    assert 'add them, with 255 for pixels to ignore' in message
    remedy = {0: 0, 255: 1, 3: 255, 128: 255}
    assert load(tmp_path / 'a.png', [[0, 128], [3, 255]], values=remedy) == [
        [0, 255], [255, 1]]


@pytest.mark.parametrize('values', [{}, [0, 255], 5, {0: 'sky'}, {256: 0}, {0: -1},
                                    {'sky': 0}, {0: None}])
def test_values_reject_other_maps(values):
    with pytest.raises(InputError, match='values=.* maps ids of the files to class'):
        LoadSegAnnotations(values=values)


@pytest.mark.parametrize('arguments', [
    dict(reduce_zero_label=True), dict(reduce_zero_label=None)])
def test_values_exclude_reduce_zero_label(tmp_path, arguments):
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / 'a.png')
    loader = LoadSegAnnotations(values={0: 0}, **arguments)
    with pytest.raises(InputError, match='set reduce_zero_label=False in the data set'):
        loader(dict(seg_map_path=str(tmp_path / 'a.png'), label_map=None,
                    reduce_zero_label=True, seg_fields=[]))


@pytest.mark.parametrize('dtype', [np.uint8, np.int64])
def test_count_values_counts_pixels(dtype):
    label = np.array([[0, 255, 3], [3, 3, 0]], dtype)
    assert count_values(label) == {0: 2, 255: 1, 3: 3}


def test_count_values_is_exact_for_large_labels():
    label = np.full((5000, 5000), 7, np.uint8)  # above 2^24 pixels
    assert count_values(label) == {7: 25_000_000}
