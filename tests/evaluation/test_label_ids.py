"""raw_ids() undoes what MMSegmentation's loader does to a label file."""
import numpy as np
import pytest
from mmseg.datasets import ADE20KDataset, BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmseg_encstdc.datasets import CamVidDataset, LoadSegAnnotations
from mmseg_encstdc.errors import InputError
from mmseg_encstdc.evaluation.label_ids import raw_ids

ORDER = ('bicyclist', 'sky', 'road')  # of CamVid's 10, 0 and 3


def loaded(path, metainfo):
    """Return the class ids that MMSegmentation's loader makes of a file."""
    return LoadAnnotations().transform(dict(
        seg_map_path=str(path), label_map=metainfo['label_map'], seg_fields=[],
        reduce_zero_label=metainfo['reduce_zero_label']))['gt_seg_map']


@pytest.mark.parametrize('dataset', [
    BaseSegDataset(metainfo=dict(classes=('a', 'b')), lazy_init=True),
    BaseSegDataset(metainfo=dict(classes=('a', 'b')), lazy_init=True,
                   reduce_zero_label=True),
    ADE20KDataset(lazy_init=True),
    ADE20KDataset(lazy_init=True, metainfo=dict(classes=('tree', 'wall'))),
    CamVidDataset(lazy_init=True),
    CamVidDataset(lazy_init=True, metainfo=dict(classes=ORDER)),
], ids=['plain', 'reduced', 'ade', 'ade_two', 'camvid', 'camvid_three'])
def test_raw_ids_are_loaded_as_class_ids(dataset, tmp_path):
    table = raw_ids(dataset.metainfo)
    assert table.dtype == np.uint8
    Image.fromarray(np.stack([table, table])).save(tmp_path / 'label.png')
    found = loaded(tmp_path / 'label.png', dataset.metainfo)
    assert found.tolist() == [list(range(len(dataset.metainfo['classes'])))] * 2


def test_raw_ids_of_known_data_sets():
    assert raw_ids(ADE20KDataset(lazy_init=True).metainfo).tolist() == list(
        range(1, 151))
    camvid = CamVidDataset(lazy_init=True, metainfo=dict(classes=ORDER))
    assert raw_ids(camvid.metainfo).tolist() == [10, 0, 3]
    masks = dict(classes=('no', 'yes'), label_map={0: 0, 255: 1})
    assert raw_ids(masks).tolist() == [0, 255]


def test_raw_ids_reject_merged_ids():
    with pytest.raises(InputError, match='for b: 1, 2; it needs one id for each class'):
        raw_ids(dict(classes=('a', 'b'), label_map={1: 1, 2: 1}))
    with pytest.raises(InputError, match='for a: 3, 4; it needs one id'):
        raw_ids(dict(classes=('a', )), {3: 0, 4: 0})


def test_raw_ids_reject_class_without_id():
    with pytest.raises(InputError, match='for b: none; it needs one id'):
        raw_ids(dict(classes=('a', 'b')), {0: 0, 255: 255})


@pytest.mark.parametrize('metainfo, values', [
    (dict(classes=('a', 'b')), {0: 0, 255: 1}),
    (CamVidDataset(lazy_init=True, metainfo=dict(classes=ORDER)).metainfo,
     {100 + i: i for i in range(11)} | {7: 255}),
], ids=['mask', 'subset'])
def test_raw_ids_undo_values_of_the_loader(metainfo, values, tmp_path):
    table = raw_ids(metainfo, values)
    Image.fromarray(table[None]).save(tmp_path / 'label.png')
    found = LoadSegAnnotations(values=values).transform(dict(
        seg_map_path=str(tmp_path / 'label.png'), seg_fields=[],
        label_map=metainfo.get('label_map'), reduce_zero_label=False))
    assert found['gt_seg_map'].tolist() == [list(range(len(table)))]
