"""Values that must agree are compared in one line that names both places."""
import copy
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_encstdc.engine import check_config
from mmseg_encstdc.engine.checks.agreement import (
    check_agreement,
    check_trained_classes,
    transforms_of,
)
from mmseg_encstdc.engine.checks.head_configs import class_heads_of
from mmseg_encstdc.engine.checks.one_channel import check_channels
from mmseg_encstdc.errors import InputError

STOCK = Path(mmseg.__file__).parent / '.mim/configs'
TRAIN = ['train_dataloader', 'val_dataloader']
TEST = ['test_dataloader']
HEAD = 'model.decode_head.ignore_index'


@pytest.fixture
def encnet(root):
    """Return a config with padding in its pipeline."""
    return Config.fromfile(root / 'configs/encnet_r50_ade.py')


@pytest.fixture
def plain(root):
    """Return a config whose labels are read as they are."""
    cfg = Config.fromfile(root / 'configs/encnet_r18_camvid.py')
    for loader in (*TRAIN, *TEST):
        cfg[loader].dataset.type = 'BaseSegDataset'
        cfg[loader].dataset.metainfo = dict(classes=[f'c{i}' for i in range(11)])
    return cfg


def error_of(cfg, loaders=TRAIN, training=True):
    with pytest.raises(InputError) as caught:
        check_agreement(cfg, loaders, training)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def everywhere(cfg, value):
    """Ignore another id in all places of a plain config."""
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.ignore_index = value
    cfg.model.data_preprocessor.seg_pad_val = value
    cfg.val_evaluator.ignore_index = cfg.test_evaluator.ignore_index = value
    for loader in (*TRAIN, *TEST):
        for _, transform in transforms_of(cfg[loader].dataset, ''):
            if transform.get('type') == 'LoadSegAnnotations':
                transform.ignore_index = value
            elif transform.get('type') == 'RandomRotate':
                transform.seg_pad_val = value
            elif transform.get('type') == 'Pad':
                transform.pad_val = dict(img=0, seg=value)
    return cfg


def test_configs_agree(root):
    files = sorted(file for file in (root / 'configs').glob('*.py'))
    for file in files:
        cfg = Config.fromfile(file)
        loaders = [name for name in (*TRAIN, *TEST) if cfg.get(name)]
        assert check_agreement(cfg, loaders, training=True) is None
    assert len(files) > 15


@pytest.mark.skipif(not STOCK.is_dir(),
                    reason='this mmsegmentation was installed without its configs')
def test_configs_of_mmsegmentation_agree():
    """Take one config of each of MMSegmentation's folders."""
    folders = sorted({file.parent for file in STOCK.glob('*/*.py')
                      if file.parent.name != '_base_'})
    checked = 0
    for folder in folders:
        try:
            cfg = Config.fromfile(sorted(folder.glob('*.py'))[0])
        except ImportError:  # of a library that is not installed
            continue
        for key, head in class_heads_of(cfg.model):
            check_channels(key, head)
        loaders = [name for name in (*TRAIN, *TEST) if cfg.get(name)]
        assert check_agreement(cfg, loaders, training=True) is None
        checked += 1
    assert checked > 40


def place(cfg, index, **values):
    transform = cfg.train_dataloader.dataset.pipeline[index]
    transform.update(values)
    return f'train_dataloader.dataset.pipeline[{index}]'


PLACES = {
    'model.auxiliary_head.ignore_index': lambda cfg: cfg.model.auxiliary_head.update(
        ignore_index=7),
    'model.data_preprocessor.seg_pad_val': lambda cfg: (
        cfg.model.data_preprocessor.update(seg_pad_val=7)),
    'train_dataloader.dataset.pipeline[1].ignore_index': lambda cfg: place(
        cfg, 1, ignore_index=7),
    'train_dataloader.dataset.pipeline[4].seg_pad_val': lambda cfg: place(
        cfg, 4, seg_pad_val=7),
    'train_dataloader.dataset.pipeline[5].pad_val.seg': lambda cfg: place(
        cfg, 5, pad_val=dict(seg=7)),
    'train_dataloader.dataset.pipeline[6].ignore_index': lambda cfg: place(
        cfg, 6, ignore_index=7, cat_max_ratio=0.75),
    'val_dataloader.dataset.pipeline[2].ignore_index': lambda cfg: (
        cfg.val_dataloader.dataset.pipeline[2].update(ignore_index=7)),
    'val_evaluator.ignore_index': lambda cfg: cfg.val_evaluator.update(ignore_index=7),
}


@pytest.mark.parametrize('key', PLACES)
def test_other_ignored_id_is_refused(encnet, key):
    PLACES[key](encnet)
    assert error_of(encnet) == (f'{HEAD} is 255, but {key} is 7; set both to the same '
                                'id')


def test_remedy_of_other_ignored_id_is_accepted(plain):
    plain.model.decode_head.ignore_index = 3
    assert error_of(plain).startswith(f'{HEAD} is 3, but model.auxiliary_head')
    everywhere(plain, 3)
    assert check_agreement(plain, TRAIN, training=True) is None
    assert check_agreement(plain, TEST) is None


def test_ignored_id_of_test_is_compared_without_training(plain):
    everywhere(plain, 3)
    plain.model.data_preprocessor.seg_pad_val = 255  # pads no label of a test
    assert check_agreement(plain, TEST) is None
    plain.test_evaluator = [dict(type='IoUMetric')]
    assert error_of(plain, TEST, False) == (
        f'{HEAD} is 3, but test_evaluator[0].ignore_index is 255; set both to the same '
        'id')


def test_nested_and_wrapped_transforms_are_compared(encnet):
    pad = dict(type='Pad', size=(480, 480), pad_val=dict(img=0, seg=0))
    inner = encnet.train_dataloader.dataset
    inner.pipeline[5] = dict(type='RandomChoice', transforms=[[pad]])
    encnet.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=inner)
    assert ('train_dataloader.dataset.dataset.pipeline[5].transforms[0][0].pad_val.seg '
            'is 0') in error_of(encnet)


def test_values_without_effect_are_accepted(encnet):
    place(encnet, 6, ignore_index=7)  # RandomCrop that counts no classes
    place(encnet, 5, pad_val=3)  # of the image; labels get 255
    encnet.val_evaluator = dict(type='CityscapesMetric', output_dir='x', ignore_index=1)
    assert check_agreement(encnet, TRAIN, training=True) is None
    encnet.model.decode_head.ignore_index = None  # of MMSegmentation's mask losses
    assert check_agreement(encnet, TRAIN, training=True) is None


def test_loss_with_ignored_id_of_its_own_is_compared(root, plain):
    plain.model.auxiliary_head.loss_decode = dict(
        type='OhemCrossEntropy', ignore_label=3)
    assert ('model.auxiliary_head.loss_decode.ignore_label is 3') in error_of(plain)
    stdc = Config.fromfile(root / 'configs/stdc1_camvid.py')
    assert check_agreement(stdc, TRAIN, training=True) is None
    stdc.model.auxiliary_head[2].loss_decode = dict(
        type='DetailAggregateLoss', ignore_index=11)
    assert ('model.auxiliary_head[2].loss_decode.ignore_index is 11'
            ) in error_of(stdc)


def test_ignored_id_of_data_set_is_compared(plain):
    plain.train_dataloader.dataset.ignore_index = 0
    assert error_of(plain) == (
        f'{HEAD} is 255, but train_dataloader.dataset.ignore_index is 0; set both to '
        'the same id')
    plain.train_dataloader.dataset.ignore_index = 255
    assert check_agreement(plain, TRAIN, training=True) is None


def test_padding_that_is_not_ignored_would_change_the_loss(plain):
    """Show the wrong number that the check prevents: padding trained as class 0."""
    plain.model.data_preprocessor.seg_pad_val = 0
    assert 'seg_pad_val is 0' in error_of(plain)
    found = []
    for value in (0, 255):
        preprocessor = MODELS.build(dict(
            plain.model.data_preprocessor, seg_pad_val=value, size_divisor=None,
            size=(8, 8)))
        sample = SegDataSample(gt_sem_seg=PixelData(
            data=torch.full((1, 4, 4), 5)))
        batch = preprocessor(dict(inputs=[torch.zeros(3, 4, 4)], data_samples=[sample]),
                             training=True)
        labels = batch['data_samples'][0].gt_sem_seg.data
        found.append(int(((labels != 255) & (labels != 5)).sum()))
    assert found == [48, 0]


# --- Ids that a data set writes ----------------------------------------------


@pytest.mark.parametrize('change, key', [
    (dict(reduce_zero_label=True), 'reduce_zero_label'),
    (dict(type='CamVidDataset', metainfo=None), 'label map'),
    (dict(type='CamVidDataset', metainfo=dict(classes=['sky'])), 'label map'),
])
def test_written_id_that_is_not_ignored_is_refused(plain, change, key):
    everywhere(plain, 3)
    plain.train_dataloader.dataset.update(change)
    if change.get('metainfo', 0) is None:
        plain.train_dataloader.dataset.metainfo = None
    assert error_of(plain, ['train_dataloader']) == (
        f'{HEAD} is 3, but the {key} of train_dataloader.dataset writes 255 for what '
        'is ignored; set ignore_index to 255 everywhere')
    everywhere(plain, 255)
    assert check_agreement(plain, ['train_dataloader'], training=True) is None


# --- Class ids ---------------------------------------------------------------


def test_classes_in_another_order_are_refused(plain):
    names = list(plain.val_dataloader.dataset.metainfo.classes)
    plain.val_dataloader.dataset.metainfo.classes = [names[1], names[0], *names[2:]]
    assert error_of(plain) == (
        'class c1 is 1 in train_dataloader.dataset and 0 in val_dataloader.dataset; '
        'give metainfo.classes of both in one order')


def test_classes_in_another_order_name_the_data_set_of_a_wrapper(plain):
    one, other = (copy.deepcopy(plain.train_dataloader.dataset) for _ in range(2))
    other.metainfo.classes = ['c1', 'c0']
    plain.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, other])
    assert error_of(plain) == (
        'class c1 is 1 in train_dataloader.dataset.datasets[0] and 0 in '
        'train_dataloader.dataset.datasets[1]; give metainfo.classes of both in one '
        'order')


def test_other_names_at_the_same_ids_are_accepted(plain):
    names = list(plain.val_dataloader.dataset.metainfo.classes)
    plain.val_dataloader.dataset.metainfo.classes = [*names[:-1], 'vehicle']
    assert check_agreement(plain, TRAIN, training=True) is None


@pytest.mark.parametrize('meta', [
    dict(dataset_meta=dict(classes=('c1', 'c0'))), dict(CLASSES=['c1', 'c0'])])
def test_checkpoint_trained_in_another_order_is_refused(plain, meta):
    with pytest.raises(InputError) as caught:
        check_trained_classes(plain, meta, 'net.pth')
    assert str(caught.value).startswith(
        'class c0 is 1 in checkpoint net.pth and 0 in test_dataloader.dataset')


@pytest.mark.parametrize('meta', [
    {}, dict(dataset_meta=None), dict(dataset_meta={}), dict(dataset_meta=[1]),
    dict(dataset_meta=dict(classes=[f'c{i}' for i in range(11)]))])
def test_checkpoint_of_same_or_unknown_order_is_accepted(plain, meta):
    assert check_trained_classes(plain, meta, 'net.pth') is None


def test_check_config_compares_ignored_ids(plain, tmp_path):
    for folder in ('images/val', 'labels/val'):
        (tmp_path / folder).mkdir(parents=True)
    plain.test_dataloader.dataset.data_root = str(tmp_path)
    assert check_config(copy.deepcopy(plain), TEST) is None
    plain.test_evaluator.ignore_index = 0
    with pytest.raises(InputError, match='but test_evaluator.ignore_index is 0'):
        check_config(plain, TEST)
