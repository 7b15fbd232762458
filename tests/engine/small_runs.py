"""Make trainings that take seconds, and stop them."""
import uuid
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

from mmseg_encstdc.engine import build_runner

ROOT = Path(__file__).parents[2]


def write_set(folder, train=5, val=2, size=(32, 48)):
    """Write images and labels of 11 classes in CamVid's layout."""
    rng = np.random.default_rng(0)
    for split, count in (('train', train), ('val', val)):
        for i in range(count):
            label = rng.integers(0, 11, size, np.uint8)
            image = rng.integers(0, 256, (*size, 3), np.uint8)
            for file, pixels in ((f'images/{split}/{i}.png', image),
                                 (f'labels/{split}/{i}.png', label)):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / file)
    return folder


def small_config(data, work, name='encnet_r18_camvid', iterations=8, interval=2,
                 workers=0):
    """Return a config with crops of 64 and a checkpoint every few iterations."""
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    cfg.work_dir = str(work)
    if 'encnet' in name:
        cfg.model.backbone.update(base_channels=8, stem_channels=8)
        cfg.model.decode_head.update(in_channels=[16, 32, 64], channels=16)
        cfg.model.auxiliary_head.update(in_channels=32, channels=8)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=workers if split == 'train' else 0,
                      persistent_workers=workers > 0 and split == 'train')
        loader.dataset.update(data_root=str(data), img_suffix='.png')
    cfg.train_dataloader.batch_size = 2
    for transform in cfg.train_dataloader.dataset.pipeline:
        if 'crop_size' in transform:
            transform.crop_size = (64, 64)
    cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)
    cfg.param_scheduler = [dict(type='PolyLR', power=0.9, begin=0, end=iterations,
                                by_epoch=False)]
    cfg.default_hooks.checkpoint.interval = interval
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.pop('visualization')
    return cfg


def tiny_config(data, work, **kwargs):
    """Return the config of a network of one layer, whose runs take a second."""
    cfg = small_config(data, work, 'stdc1_camvid', **kwargs)
    cfg.model = dict(
        type='EncoderDecoder', data_preprocessor=cfg.model.data_preprocessor,
        backbone=dict(type='LocalNet', depth=1, channels=8),
        decode_head=dict(type='FCNHead', in_channels=8, channels=8, num_convs=1,
                         num_classes=11, dropout_ratio=0.5),
        train_cfg=dict(), test_cfg=dict(mode='whole'))
    return cfg


def by_epochs(cfg, epochs=3):
    """Change a config to count epochs."""
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs,
                         val_interval=epochs)
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    cfg.param_scheduler = [dict(type='PolyLR', power=0.9, begin=0, end=epochs,
                                by_epoch=True, convert_to_iter_based=True)]
    cfg.default_hooks.checkpoint.update(by_epoch=True, interval=1)
    cfg.log_processor = dict(by_epoch=True)
    return cfg


class Stop(Exception):
    """Stand for whatever ends a run."""


class StopAt(Hook):
    """Raise Stop after an iteration, before its checkpoint is saved."""

    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.iteration:
            raise Stop


def build(cfg):
    """Build a runner that shares no log with another of the same second."""
    cfg.experiment_name = uuid.uuid4().hex
    return build_runner(cfg)


def train(cfg, state=None, stop=None):
    """Train in this process, from a checkpoint or until an iteration."""
    runner = build(cfg)
    if state:
        runner.continue_from(str(state))
    if stop:
        runner.register_hook(StopAt(stop))
        try:
            runner.train()
        except Stop:
            return None
        raise AssertionError('the run was not stopped')
    return runner.train().state_dict()


def differing(first, second):
    """Return the names of weights that are not equal to the bit."""
    assert first.keys() == second.keys()
    return [name for name, value in first.items()
            if not torch.equal(value, second[name])]


def quick(monkeypatch):
    """Leave out what takes MMEngine most of a tiny run: it formats texts."""
    monkeypatch.setattr('mmengine.config.config.FormatCode',
                        lambda text, **_: (text, True))
    monkeypatch.setattr(Runner, '_log_env', lambda *_: None)
