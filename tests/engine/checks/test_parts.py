"""Test the checks of a config and its data before the runner is built."""
import copy

import numpy as np
import pytest
import torch
from input_errors import error_of
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS
from PIL import Image

from mmseg_encstdc.datasets.pair_reader import PairReader
from mmseg_encstdc.engine import check_config, check_data, datasets_of
from mmseg_encstdc.engine.checks import data as data_checks
from mmseg_encstdc.errors import InputError

LOADERS = ['train_dataloader', 'val_dataloader']


def write_camvid(root, count=3, value=3):
    """Write a tiny data set in CamVid's layout."""
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            image = np.full((6, 8, 3), 90, np.uint8)
            Image.fromarray(image).save(root / f'images/{split}/{i}.jpg')
            label = np.full((6, 8), value, np.uint8)
            Image.fromarray(label).save(root / f'labels/{split}/{i}.png')


def on_data(cfg, folder):
    """Return a config with its data sets in a folder, whose labels have one class."""
    cfg.data_checks = dict(missing_classes='warn')
    for loader in LOADERS:
        cfg[loader].dataset.data_root = str(folder)
    return cfg


@pytest.fixture
def stdc(root, tmp_path):
    """Return the config of STDC1 on a tiny CamVid."""
    write_camvid(tmp_path)
    return on_data(Config.fromfile(root / 'configs/stdc1_camvid.py'), tmp_path)


@pytest.fixture
def encnet(root, tmp_path):
    """Return the config of EncNet on a tiny CamVid."""
    write_camvid(tmp_path)
    return on_data(Config.fromfile(root / 'configs/encnet_r18_camvid.py'), tmp_path)


def in_wrappers(dataset):
    """Put a data set into wrappers of MMEngine, twice."""
    return ConfigDict(type='ConcatDataset', datasets=[
        dict(type='RepeatDataset', times=2, dataset=dict(
            type='ConcatDataset', datasets=[copy.deepcopy(dataset)])),
        copy.deepcopy(dataset)])


# --- The config against itself -----------------------------------------------


def test_check_config_accepts_stdc(stdc):
    assert check_config(stdc, LOADERS, training=True) is None
    assert check_data(stdc, LOADERS) is None


def test_check_config_accepts_encnet(encnet):
    assert check_config(encnet, LOADERS, training=True) is None
    assert check_data(encnet, LOADERS) is None


@pytest.mark.parametrize('key', ['decode_head', 'auxiliary_head'])
def test_check_config_names_head_with_other_num_classes(encnet, key):
    encnet.model[key].num_classes = 19
    message = error_of(check_config, encnet, LOADERS)
    assert message == (f'model.{key}.num_classes is 19, but CamVidDataset '
                       '(train_dataloader) has 11 classes; set it to 11')


def test_check_config_names_index_of_auxiliary_head(stdc):
    stdc.model.auxiliary_head[1].num_classes = 19
    message = error_of(check_config, stdc, LOADERS)
    assert message.startswith('model.auxiliary_head[1].num_classes is 19')


def test_check_config_ignores_channels_of_detail_head(stdc):
    assert stdc.model.auxiliary_head[2].type == 'DetailHead'
    stdc.model.auxiliary_head[2].num_classes = 1
    assert check_config(stdc, LOADERS) is None


def test_check_config_checks_only_given_loaders(encnet):
    encnet.train_dataloader.dataset.data_root = 'nowhere'
    assert check_config(encnet, ['val_dataloader']) is None
    assert check_data(encnet, ['val_dataloader']) is None
    message = error_of(check_config, encnet, ['train_dataloader'])
    assert 'nowhere does not exist' in message


def test_check_config_prefers_classes_of_config(encnet):
    for loader in LOADERS:
        encnet[loader].dataset.metainfo = dict(classes=['car', 'road'])
    message = error_of(check_config, encnet, LOADERS)
    assert 'has 2 classes; set it to 2' in message
    encnet.model.decode_head.num_classes = 2
    encnet.model.auxiliary_head.num_classes = 2
    assert check_config(encnet, LOADERS) is None


def test_check_config_accepts_unknown_classes(encnet):
    for loader in LOADERS:
        encnet[loader].dataset.type = 'BaseSegDataset'
    assert check_config(encnet, LOADERS) is None


def test_check_config_names_unregistered_dataset(encnet):
    encnet.val_dataloader.dataset.type = 'MyDataset'
    message = error_of(check_config, encnet, LOADERS)
    assert 'val_dataloader.dataset.type MyDataset is not registered' in message
    assert 'custom_imports' in message


@pytest.mark.parametrize('name, folder, source', [
    ('stdc1_camvid', 'data/camvid', 'SegNet tutorial'),
    ('encnet_r50_ade', 'data/ade/ADEChallengeData2016', 'MIT scene parsing'),
    ('stdc1_seg50_cityscapes', 'data/cityscapes', 'cityscapes-dataset.com'),
    ('encnet_r50_voc', 'data/VOCdevkit/VOC2012', 'SBD annotations'),
    ('encnet_r50_pcontext', 'data/VOCdevkit/VOC2010', 'PASCAL Context'),
    ('encnet_r50_coco', 'data/coco_stuff164k', 'stuffthing maps'),
])
def test_check_config_names_missing_data_root(
        root, tmp_path, monkeypatch, name, folder, source):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(root / f'configs/{name}.py')
    for loader in LOADERS:
        message = error_of(check_config, cfg, [loader])
        assert f'{folder} does not exist' in message
        assert source in message


def test_check_config_names_missing_folder(encnet, tmp_path):
    (tmp_path / 'labels' / 'val').rename(tmp_path / 'labels' / 'validation')
    message = error_of(check_config, encnet, LOADERS)
    assert f'{tmp_path}/labels/val does not exist' in message


# --- Batch size --------------------------------------------------------------


def test_check_config_rejects_stdc_batch_of_one(stdc):
    stdc.train_dataloader.batch_size = 1
    message = error_of(check_config, stdc, LOADERS, training=True)
    assert 'train_dataloader.batch_size is 1' in message
    assert '2 images or more in each process' in message


def test_check_config_accepts_stdc_batch_of_one_in_test(stdc):
    stdc.train_dataloader.batch_size = 1
    assert check_config(stdc, LOADERS) is None


def test_check_config_accepts_encnet_batch_of_one(encnet):
    encnet.train_dataloader.batch_size = 1
    assert check_config(encnet, LOADERS, training=True) is None


def test_check_config_accepts_batch_of_one_with_sync_bn(stdc):
    stdc.train_dataloader.batch_size = 1
    assert stdc.model.backbone.norm_cfg.type == 'SyncBN'
    assert check_config(stdc, LOADERS, world_size=2, training=True) is None


def test_check_config_rejects_batch_of_one_without_sync_bn(stdc):
    stdc.train_dataloader.batch_size = 1
    stdc.model.backbone.norm_cfg.type = 'BN'
    message = error_of(check_config, stdc, LOADERS, world_size=2, training=True)
    assert 'batch_size is 1' in message


def test_check_config_rejects_batch_of_one_on_cpus(stdc):
    stdc.train_dataloader.batch_size = 1
    stdc.model_wrapper_cfg = dict(type='CPUDistributedDataParallel')
    message = error_of(check_config, stdc, LOADERS, world_size=2, training=True)
    assert 'batch_size is 1' in message


# --- Wrapped data sets -------------------------------------------------------


def test_datasets_of_finds_wrapped_datasets():
    found = datasets_of(in_wrappers(dict(type='CamVidDataset', data_root='a')))
    assert [(d.type, d.data_root) for d in found] == [('CamVidDataset', 'a')] * 2


def test_datasets_of_yields_plain_dataset():
    config = dict(type='CamVidDataset', data_root='a')
    assert list(datasets_of(config)) == [config]


def test_check_config_checks_wrapped_datasets(encnet):
    dataset = encnet.train_dataloader.dataset
    encnet.train_dataloader.dataset = in_wrappers(dataset)
    assert check_config(encnet, LOADERS, training=True) is None
    assert check_data(encnet, LOADERS) is None

    dataset.data_root = 'nowhere'
    encnet.train_dataloader.dataset = in_wrappers(dataset)
    assert 'nowhere does not exist' in error_of(check_config, encnet, LOADERS)


def test_datasets_of_finds_both_parts_of_voc(root):
    cfg = Config.fromfile(root / 'configs/encnet_r50_voc.py')
    lists = [d.ann_file for d in datasets_of(cfg.train_dataloader.dataset)]
    assert [name.split('/')[-1] for name in lists] == ['train.txt', 'aug.txt']


# --- The data ----------------------------------------------------------------


def test_check_data_names_missing_label(encnet, tmp_path):
    (tmp_path / 'labels/val/1.png').unlink()
    message = error_of(check_data, encnet, LOADERS)
    assert f'label {tmp_path}/labels/val/1.png is missing' in message


def test_check_data_names_label_of_other_size(encnet, tmp_path):
    path = tmp_path / 'labels/train/2.png'
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(path)
    assert f'label {path} is 9 x 6' in error_of(check_data, encnet, LOADERS)


@pytest.mark.parametrize('kind, name', [('image', 'images/train/0.jpg'),
                                        ('label', 'labels/val/2.png')])
def test_check_data_names_unreadable_file(encnet, tmp_path, kind, name):
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:40])
    message = error_of(check_data, encnet, LOADERS)
    assert f'{kind} {path} cannot be read' in message


def test_check_data_names_label_value_out_of_range(encnet, tmp_path):
    path = tmp_path / 'labels/train/1.png'
    Image.fromarray(np.full((6, 8), 77, np.uint8)).save(path)
    message = error_of(check_data, encnet, LOADERS)
    assert f'label {path} holds the values 77' in message


def test_check_data_rejects_folder_without_images(encnet, tmp_path):
    for path in (tmp_path / 'images/train').iterdir():
        path.unlink()
    assert 'no images found' in error_of(check_data, encnet, LOADERS)


def test_check_data_does_not_run_pipelines(encnet):
    encnet.train_dataloader.dataset.pipeline = [dict(type='DoesNotExist')]
    assert check_data(encnet, LOADERS) is None


def test_check_data_accepts_any_value_without_classes(encnet):
    for loader in LOADERS:
        encnet[loader].dataset.type = 'BaseSegDataset'
    assert check_data(encnet, LOADERS) is None


def test_check_data_reads_500_pairs_and_requires_all(
        encnet, tmp_path, monkeypatch):
    monkeypatch.setattr(data_checks, 'SAMPLE', 2)
    for i in range(3, 10):
        for name in ('images/train/{}.jpg', 'labels/train/{}.png'):
            copied = (tmp_path / name.format(0)).read_bytes()
            (tmp_path / name.format(i)).write_bytes(copied)
    read = []
    plain_read = PairReader.read
    monkeypatch.setattr(PairReader, 'read', lambda self, sample: (
        read.append(sample['img_path'][-5:]), plain_read(self, sample))[1])
    check_data(encnet, ['train_dataloader'])
    assert read == ['0.jpg', '5.jpg']  # spread evenly over the ten
    (tmp_path / 'labels/train/3.png').unlink()
    assert '3.png is missing' in error_of(check_data, encnet, ['train_dataloader'])


def test_check_config_names_missing_init_cfg_checkpoint(encnet, tmp_path):
    encnet.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'resnet50s.pth'))
    assert check_config(encnet, LOADERS) is None  # evaluation needs none
    with pytest.raises(InputError, match='model.backbone.init_cfg.checkpoint .*'
                       'resnet50s.pth does not exist.*tools/convert'):
        check_config(encnet, LOADERS, training=True)
    (tmp_path / 'resnet50s.pth').touch()
    with pytest.raises(InputError, match='cannot be read'):
        check_config(encnet, LOADERS, training=True)


def test_check_config_rejects_init_cfg_of_other_module(encnet, tmp_path):
    path = str(tmp_path / 'weights.pth')
    encnet.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=path)
    backbone = MODELS.build({**encnet.model.backbone, 'init_cfg': None})
    state = backbone.state_dict()
    torch.save(dict(state_dict=state), path)
    assert check_config(encnet, LOADERS, training=True) is None
    torch.save({f'backbone.{key}': value for key, value in state.items()}, path)
    with pytest.raises(InputError, match='has none of the weights of ResNet'):
        check_config(encnet, LOADERS, training=True)
    encnet.model.backbone.init_cfg.prefix = 'backbone.'
    assert check_config(encnet, LOADERS, training=True) is None
