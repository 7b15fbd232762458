"""Loader, mean, std and backbone of a config have the same channels, or one line."""
import copy

import pytest
import torch
from input_errors import error_of
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_encstdc.engine.checks.image_channels import (
    check_image_channels,
    input_format,
)

LOADERS = ['train_dataloader', 'val_dataloader', 'test_dataloader']


@pytest.fixture(params=['stdc1_camvid', 'encnet_r18_camvid', 'local_scenes'])
def cfg(request, root):
    return Config.fromfile(root / f'configs/{request.param}.py')


def set_channels(cfg, bands=None, norm=None, network=None, **load):
    """Set the bands of all loaders, the length of mean and std, and in_channels."""
    for loader in LOADERS:
        pipeline = copy.deepcopy(cfg[loader].dataset.pipeline)
        if bands is not None:
            pipeline[0] = dict(type='LoadSegImage', bands=bands, **load)
        cfg[loader].dataset.pipeline = pipeline
    if norm is not None:
        cfg.model.data_preprocessor.update(mean=[100.] * norm, std=[50.] * norm)
    if network is not None:
        backbone = cfg.model.backbone
        backbone.get('backbone_cfg', backbone).in_channels = network
    return cfg


def without(cfg, *names):
    """Remove transforms from the training pipeline."""
    dataset = cfg.train_dataloader.dataset
    dataset.pipeline = [t for t in dataset.pipeline if t['type'] not in names]
    return cfg


def test_every_config_of_the_project_agrees(root):
    paths = sorted((root / 'configs').glob('*.py'))
    assert len(paths) > 20
    for path in paths:
        assert check_image_channels(Config.fromfile(path), LOADERS) is None


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 12])
def test_equal_channels_are_accepted(cfg, channels):
    cfg = without(set_channels(cfg, *[channels] * 3), 'Pad', 'ColorJitter')
    assert check_image_channels(cfg, LOADERS) is None
    assert input_format(cfg) == (channels, 'uint8')


@pytest.mark.parametrize('bands, norm, network, keys', [
    (4, 3, 3, ('images of train_dataloader', 'mean: 3')),
    (4, 4, 3, ('images of train_dataloader', 'in_channels: 3')),
    (4, 1, 3, ('images of train_dataloader', 'in_channels: 3')),
    (None, 4, 4, ('images of train_dataloader', 'mean: 4')),
    (1, 1, 3, ('images of train_dataloader', 'in_channels: 3')),
    (1, 3, 1, ('mean: 3', 'in_channels: 1')),
    (4, 4, None, ('images of train_dataloader', 'in_channels: 3')),
    (None, None, 4, ('images of train_dataloader', 'in_channels: 4')),
])
def test_other_channels_are_rejected(cfg, bands, norm, network, keys):
    cfg = without(set_channels(cfg, bands, norm, network), 'ColorJitter')
    message = error_of(check_image_channels, cfg, LOADERS)
    for key in (*keys, 'LoadSegImage', 'mean and std', 'in_channels of the backbone'):
        assert key in message


def test_mean_and_std_of_other_lengths_are_rejected(cfg):
    cfg.model.data_preprocessor.std = [1., 1., 1., 1.]
    message = error_of(check_image_channels, cfg, LOADERS)
    assert 'std: 4' in message


def test_what_stock_computes_right_is_accepted(cfg):
    """One value of mean serves three channels, and grey images three values."""
    assert check_image_channels(set_channels(cfg, None, 1), LOADERS) is None
    grey = dict(type='LoadImageFromFile', color_type='grayscale')
    for loader in LOADERS:
        cfg[loader].dataset.pipeline[0] = grey
    cfg = without(set_channels(cfg, None, 3), 'ColorJitter')
    assert check_image_channels(cfg, LOADERS) is None


@pytest.mark.parametrize('steps', [
    [dict(type='LoadImageFromFile'), dict(type='ConcatCDInput')],
    [dict(type='LoadImageFromFile', imdecode_backend='tifffile')],
    [dict(type='LoadImageFromFile', color_type='unchanged')],
    [dict(type='LoadSingleRSImageFromFile')],
    [dict(type='LoadImageFromFile'), dict(type='TransformOfTheUser')]])
def test_pipelines_of_unknown_channels_are_left_to_the_model(cfg, steps):
    for loader in LOADERS:
        cfg[loader].dataset.pipeline = steps
    assert check_image_channels(set_channels(cfg, None, 6, 6), LOADERS) is None


@pytest.mark.parametrize('name, bands, dtype', [
    ('PhotoMetricDistortion', 4, 'uint8'), ('ColorJitter', 1, 'uint8'),
    ('Albu', 4, 'uint8'), ('PhotoMetricDistortion', 3, 'uint16'),
    ('AdjustGamma', 3, 'uint16'), ('CLAHE', 1, 'float32'),
    ('RandomGrayscale', 3, 'uint16')])
def test_transforms_that_spoil_an_image_are_rejected(cfg, name, bands, dtype):
    set_channels(cfg, bands, bands, bands, dtype=dtype)
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline.insert(2, dict(type='RandomApply', transforms=[[dict(type=name)]]))
    message = error_of(check_image_channels, without(cfg, 'ColorJitter') if name != (
        'ColorJitter') else cfg, LOADERS)
    assert f'train_dataloader.dataset.pipeline: {name}' in message
    assert f'{bands} of {dtype}; leave it out' in message
    cfg.train_dataloader.dataset.pipeline = [
        step for step in cfg.train_dataloader.dataset.pipeline
        if step['type'] not in ('RandomApply', 'ColorJitter')]
    assert check_image_channels(cfg, LOADERS) is None


@pytest.mark.parametrize('loader', ['LoadImageFromFile', 'LoadSegImage'])
def test_transforms_of_colours_are_accepted_where_they_are_right(cfg, loader):
    cfg.train_dataloader.dataset.pipeline[0] = dict(type=loader, to_float32=True)
    for name in ('PhotoMetricDistortion', 'AdjustGamma'):
        cfg.train_dataloader.dataset.pipeline.insert(2, dict(type=name))
    assert check_image_channels(cfg, LOADERS) is None


def test_pad_of_many_bands_is_rejected_with_a_remedy(root):
    cfg = Config.fromfile(root / 'configs/encnet_r18_camvid.py')
    message = error_of(check_image_channels, set_channels(cfg, 5, 5, 5), LOADERS)
    assert 'Pad cannot pad images of 5 bands' in message
    assert 'set size of model.data_preprocessor' in message
    assert 'size_divisor there to None' in message
    assert check_image_channels(without(cfg, 'Pad'), LOADERS) is None
    preprocessor = MODELS.build(
        dict(cfg.model.data_preprocessor, size=(8, 8), size_divisor=None))
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 4, 4)))
    batch = dict(inputs=[torch.zeros(5, 4, 4)], data_samples=[sample])
    assert preprocessor(batch, training=True)['inputs'].shape == (1, 5, 8, 8)


def test_argument_that_the_loader_does_not_take_is_one_line(cfg):
    cfg.train_dataloader.dataset.pipeline[0] = dict(type='LoadSegImage', band=4)
    assert 'band' in error_of(check_image_channels, cfg, LOADERS)
