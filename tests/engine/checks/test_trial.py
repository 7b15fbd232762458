"""Test the trial of a run: each fault of a config is one line before training."""
import copy
import random
from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.visualization import Visualizer
from PIL import Image

from mmseg_encstdc.engine import build_runner, prepare_run, try_run, try_training
from mmseg_encstdc.errors import InputError

LOADERS = ['train_dataloader', 'val_dataloader']
CLASSES = 14


def write_set(root, split, sizes):
    """Write images and labels of 14 classes, (height, width) each."""
    rng = np.random.default_rng(0)
    for kind in ('images', 'labels'):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    for i, size in enumerate(sizes):
        label = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size) % CLASSES
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(image).save(root / f'images/{split}/{i}.png')
        Image.fromarray(label).save(root / f'labels/{split}/{i}.png')


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    """Return the folder of a tiny set in Scenes' layout."""
    folder = tmp_path_factory.mktemp('scenes')
    write_set(folder, 'train', [(32, 48)] * 5)
    write_set(folder, 'val', [(32, 48)] * 2)
    return folder


@pytest.fixture
def cfg(root, scenes, tmp_path):
    """Return the config of a small network on the tiny set."""
    cfg = Config.fromfile(root / 'configs/local_scenes.py')
    cfg.work_dir = str(tmp_path / 'work')
    cfg.model.backbone.depth = 2
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.num_workers = 0
        loader.dataset.data_root = str(scenes)
        loader.dataset.img_suffix = '.png'
    cfg.train_dataloader.batch_size = 2
    cfg.train_dataloader.dataset.pipeline = [
        dict(type='LoadSegImage'), dict(type='LoadSegAnnotations'),
        dict(type='RandomFlip', prob=0.5),
        dict(type='RandomCrop', crop_size=(24, 24)), dict(type='PackSegInputs')]
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    return cfg


def check(cfg):
    """Check and try a training, as tools/train.py does."""
    prepare_run(cfg, LOADERS, training=True)
    return try_training(cfg)


def error_of(cfg, run=check):
    """Return the one line of the InputError that a config gives."""
    with pytest.raises(InputError) as caught:
        run(cfg)
    message = str(caught.value)
    text = message.replace(str(Path(cfg.work_dir).parent), '')
    assert '\n' not in text and len(text) < 500
    return message


def changed(cfg, options):
    cfg.merge_from_dict(options)
    return cfg


def test_try_training_accepts_valid_config(cfg):
    assert 'train, val passed' in check(cfg)


PIPELINE = 'train_dataloader.dataset.pipeline'
REMEDY = 'did you mean {}?'
# option, value -> parts of the one line
FAULTS = [
    (f'{PIPELINE}.2.type', 'RandomFlp',
     [f'{PIPELINE}[2].type RandomFlp is not registered', REMEDY.format('RandomFlip')]),
    (f'{PIPELINE}.2.prb', 1,
     [f'{PIPELINE}[2].prb: RandomFlip has no argument', REMEDY.format('prob')]),
    (f'{PIPELINE}.2.prob', 3, [f'{PIPELINE}[2]', 'probs must be float']),
    (f'{PIPELINE}.3.crop_size', 'a', [f'{PIPELINE}[3]', "'a'"]),
    ('val_dataloader.dataset.pipeline.0.type', 'LoadImageFromFil',
     ['val_dataloader.dataset.pipeline[0].type', REMEDY.format('LoadImageFromFile')]),
    ('val_evaluator.0.type', 'ConfusionMetrik',
     ['val_evaluator[0].type', REMEDY.format('ConfusionMetric')]),
    ('val_evaluator.1.pair', 1,
     ['val_evaluator[1].pair', REMEDY.format('pairs')]),
    ('val_evaluator.1.pairs', [('road', 'flor')],
     ['val_evaluator[1]', "'flor' of PairAccuracy.pairs", 'floor']),
    ('optim_wrapper.type', 'AmpOptimWrapper',
     ['optim_wrapper', 'needs a GPU', 'OptimWrapper']),
    ('optim_wrapper.typ', 'x', ['optim_wrapper.typ', 'OptimWrapper has no argument']),
    ('optim_wrapper.optimizer.type', 'SGDD',
     ['optim_wrapper.optimizer.type', REMEDY.format('SGD')]),
    ('optim_wrapper.optimizer.momentun', 0.9,
     ['optim_wrapper.optimizer.momentun', REMEDY.format('momentum')]),
    ('optim_wrapper.optimizer.lr', 'fast', ['optim_wrapper = ', "'lr': 'fast'"]),
    ('optim_wrapper.clip_grad', dict(max_nrm=1), ['max_nrm']),
    ('optim_wrapper.paramwise_cfg.norm_decay_mul', 0.,
     ['optim_wrapper.paramwise_cfg.norm_decay_mul',
      REMEDY.format('norm_decay_mult')]),
    ('param_scheduler.0.type', 'PolyLr',
     ['param_scheduler[0].type', REMEDY.format('PolyLR')]),
    ('param_scheduler.0.powr', 1,
     ['param_scheduler[0].powr', REMEDY.format('power')]),
    ('param_scheduler', [dict(type='ReduceOnPlateauLR', monitor='mIou')],
     ['param_scheduler[0].monitor', REMEDY.format('mIoU')]),
    ('param_scheduler', [dict(type='ReduceOnPlateauLR', by_epoch=False)],
     ['param_scheduler[0]', 'set by_epoch=True']),
    ('custom_hooks', [dict(type='EarlyStoppingHook', monitor='mIou', rule='greater')],
     ['custom_hooks[0].monitor', REMEDY.format('mIoU')]),
    ('custom_hooks', [dict(type='EMAHok')],
     ['custom_hooks[0].type', REMEDY.format('EMAHook')]),
    ('custom_hooks', [dict(type='EMAHook', ema_type='Averaged')],
     ['custom_hooks[0]', 'Averaged is not registered']),
    ('default_hooks.logger.intervall', 1,
     ['default_hooks.logger.intervall', REMEDY.format('interval')]),
    ('default_hooks.checkpoint.intervall', 1,
     ['default_hooks.checkpoint.intervall', REMEDY.format('interval')]),
    ('default_hooks.checkpoint.save_best', 'mIuo',
     ["default_hooks.checkpoint.save_best is 'mIuo'", REMEDY.format('mIoU'), 'mPA']),
    ('visualizer.type', 'SegLocalVisualizr', ['visualizer.type', 'SegLocalVisualizer']),
    ('visualizer.vis_backends', [dict(type='LocalBackend')],
     ['visualizer.vis_backends[0].type', REMEDY.format('LocalVisBackend')]),
    ('log_level', 'INF', ['log_level', 'INF']),
    ('log_processor.windowsize', 3, ['log_processor.windowsize', 'no argument']),
    ('model.backbone.norm_cfg', dict(type='BNN'), ['model.backbone', 'BNN']),
    ('model.backbone.depht', 3, ['model.backbone.depht', REMEDY.format('depth')]),
    ('model.decode_head.loss_decode.class_weight', [1., 2.],
     ['model.decode_head', 'class_weight', '2', '14']),
    ('model.test_cfg.mode', 'hole', ['model', 'hole']),
    ('train_cfg.max_iter', 5, ['train_cfg.max_iter', REMEDY.format('max_iters')]),
    ('train_cfg.type', 'IterTrainLoop', ['train_cfg.type', 'IterBasedTrainLoop']),
    ('train_dataloader.batchsize', 5,
     ['train_dataloader.batchsize', REMEDY.format('batch_size')]),
    ('train_dataloader.sampler.type', 'InfinitSampler',
     ['train_dataloader.sampler.type', REMEDY.format('InfiniteSampler')]),
    ('train_dataloader.collate_fn', dict(type='pseudo_colate'),
     ['train_dataloader.collate_fn.type', REMEDY.format('pseudo_collate')]),
    ('train_dataloader.num_workers', -1, ['train_dataloader.num_workers is -1']),
    ('param_schedulr', [], ['param_schedulr', REMEDY.format('param_scheduler')]),
]


@pytest.mark.parametrize('option, value, parts', FAULTS)
def test_try_training_names_fault(cfg, option, value, parts):
    if option == 'param_schedulr':
        cfg.pop('param_scheduler')
    message = error_of(changed(cfg, {option: value}))
    print(message)
    assert all(part in message for part in parts), message


def test_try_training_builds_visualizer_beside_one_of_the_same_name(cfg):
    name = cfg.visualizer.get('name', 'visualizer')
    there = Visualizer.get_instance(name)
    cfg.visualizer.update(name=name, vis_backends=[dict(type='LocalVisBackendd')])
    assert 'visualizer.vis_backends[0].type' in error_of(cfg)
    assert Visualizer.get_instance(name) is there


# --- Data sets -----------------------------------------------------------------


def test_try_training_names_short_palette(cfg):
    cfg.val_dataloader.dataset.metainfo = dict(palette=[[0, 0, 0]])
    message = error_of(cfg)
    assert 'val_dataloader.dataset' in message and 'palette' in message
    assert 'one colour for each' in message


def test_try_training_names_concat_of_other_classes(cfg):
    part = cfg.train_dataloader.dataset
    other = copy.deepcopy(part)
    other.metainfo = dict(classes=part_classes()[::-1], palette=[[0, 0, 0]] * CLASSES)
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[part, other])
    message = error_of(cfg)
    assert 'train_dataloader.dataset' in message and 'classes' in message
    other.pop('metainfo')  # the remedy: the same metainfo
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[part, other])
    assert 'train' in check(cfg)


def part_classes():
    from mmseg_encstdc.scenes import ScenesDataset
    return list(ScenesDataset.METAINFO['classes'])


def without_classes(dataset):
    """Make a data set one of MMSegmentation's base type, which has no classes."""
    dataset.update(type='BaseSegDataset', seg_map_suffix='.png')
    return dataset


def test_try_training_names_val_set_without_classes(cfg):
    without_classes(cfg.val_dataloader.dataset)
    message = error_of(cfg)
    assert message.startswith('val_')
    assert 'val_dataloader.dataset has no classes' in message
    cfg.val_dataloader.dataset.metainfo = dict(classes=part_classes())
    assert 'val' in check(cfg)


def test_try_training_accepts_train_set_without_classes(cfg):
    without_classes(cfg.train_dataloader.dataset)
    assert 'train' in check(cfg)


def without_labels(cfg):
    cfg.test_dataloader.dataset.data_prefix.pop('seg_map_path')
    return cfg


def check_test(cfg):
    prepare_run(cfg, ['test_dataloader'])
    try_run(cfg, ['test'])


def test_try_run_names_test_set_without_labels(cfg, tmp_path):
    message = error_of(without_labels(cfg), check_test)
    assert message.startswith('test_evaluator')
    assert 'has no labels' in message and 'format_only=True' in message
    cfg.test_dataloader.dataset.pipeline[1] = dict(type='LoadAnnotations')
    message = error_of(cfg, check_test)
    assert 'test_dataloader.dataset.pipeline[1]' in message
    assert 'has no labels' in message and 'format_only=True' in message
    cfg.test_dataloader.dataset.pipeline.pop(1)
    cfg.test_evaluator = dict(
        type='ConfusionMetric', format_only=True, output_dir=str(tmp_path / 'out'))
    check_test(cfg)  # the remedy
    assert not (tmp_path / 'out').exists()


def test_try_training_only_warns_of_test_set(cfg, capsys):
    assert 'train, val passed' in check(without_labels(cfg))
    assert 'test set, which training does not need' in capsys.readouterr().err


def test_try_training_passes_over_test_set_that_is_elsewhere(cfg):
    cfg.test_dataloader.dataset.data_root = '/nowhere'
    assert 'train, val passed' in check(cfg)


# --- Missing parts ---------------------------------------------------------------


@pytest.mark.parametrize('key', ['val_evaluator', 'val_cfg', 'optim_wrapper',
                                 'train_cfg', 'test_evaluator'])
def test_prepare_run_names_missing_part(cfg, key):
    cfg[key] = None
    message = error_of(cfg)
    assert f'no {key}' in message and 'give all three or none' in message


@pytest.mark.parametrize('part, key', [
    ('train_dataloader', 'sampler'), ('train_dataloader', 'dataset'),
    ('val_dataloader', 'sampler'), ('val_dataloader.dataset', 'type'),
    ('train_dataloader.sampler', 'type')])
def test_prepare_run_names_missing_key(cfg, part, key):
    node = cfg
    for name in part.split('.'):
        node = node[name]
    node.pop(key)
    assert f'{part} has no {key}' in error_of(cfg)


def test_try_training_accepts_config_without_validation(cfg):
    for key in ('dataloader', 'cfg', 'evaluator'):
        cfg[f'val_{key}'] = cfg[f'test_{key}'] = None
    assert 'train passed' in check(cfg)


def test_prepare_run_names_config_of_validation_alone(cfg):
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[key] = None
    message = error_of(cfg)
    assert 'no train_dataloader' in message and 'tools/test.py' in message
    check_test(cfg)  # the remedy


def test_try_training_accepts_removed_hook(cfg):
    cfg.default_hooks.visualization = None
    cfg.default_hooks.timer = None
    assert 'train, val passed' in check(cfg)


# --- What would be late ------------------------------------------------------------


@pytest.mark.parametrize('best', ['auto', ['mIoU', 'PA']])
def test_save_best_ranks_pixel_accuracy(cfg, best):
    cfg.default_hooks.checkpoint.save_best = best
    check(cfg)
    build_runner(cfg).train()
    assert len(list(Path(cfg.work_dir).glob('best_PA_iter_*.pth'))) == 1


@pytest.mark.parametrize('scheduler', [
    dict(type='PolyLR', end=4, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=4, end=4, by_epoch=False),
    dict(type='LinearLR', start_factor=1, end_factor=0, end=4, by_epoch=False)])
def test_try_training_names_schedule_that_ends_early(cfg, scheduler):
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, end=2, by_epoch=False), scheduler]
    cfg.train_cfg.max_iters = 5
    message = error_of(cfg)
    assert 'param_scheduler ends at 4 with a learning rate of 0' in message
    assert 'train_cfg.max_iters is 5' in message
    cfg.train_cfg.max_iters = 4
    assert 'val' in check(cfg)


def test_try_training_accepts_rate_after_schedule(cfg):
    cfg.train_cfg.max_iters = 5
    for scheduler in (dict(type='PolyLR', end=4, eta_min=1e-4, by_epoch=False),
                      dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False)):
        cfg.param_scheduler = [scheduler]
        assert 'val' in check(cfg)


def test_try_training_names_measure_without_rule(cfg):
    cfg.default_hooks.checkpoint.save_best = 'road|floor'
    message = error_of(cfg)
    assert 'default_hooks.checkpoint' in message and "rule='greater'" in message
    cfg.default_hooks.checkpoint.rule = 'greater'
    assert 'val' in check(cfg)


class NeedsTwo(torch.nn.Module):
    def forward(self, x):
        if self.training and len(x) == 1:
            raise ValueError('Expected more than 1 value per channel when training')
        return x


def test_try_training_names_last_batch_of_one_image(cfg, monkeypatch):
    from mmseg_encstdc.scenes import LocalNet
    stock = LocalNet.forward
    two = NeedsTwo()

    def forward(self, x):
        two.train(self.training)
        return stock(self, two(x))

    monkeypatch.setattr(LocalNet, 'forward', forward)
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    cfg.train_dataloader.drop_last = False
    cfg.train_cfg.max_iters = 6
    message = error_of(cfg)
    assert '5 images in batches of 2' in message and 'drop_last=True' in message
    cfg.train_dataloader.drop_last = True
    assert 'train' in check(cfg)
    cfg.train_dataloader.drop_last, cfg.train_cfg.max_iters = False, 2
    assert 'train' in check(cfg)  # ends before the last batch


def test_try_training_names_val_batch_of_unequal_images(cfg, tmp_path):
    write_set(tmp_path / 'mixed', 'val', [(32, 48)] * 2 + [(32, 48), (40, 48)])
    cfg.val_dataloader.dataset.data_root = str(tmp_path / 'mixed')
    cfg.val_dataloader.batch_size = 2
    message = error_of(cfg)
    assert '2.png 48 x 32' in message and '3.png 48 x 40' in message
    assert 'val_dataloader.batch_size=1' in message
    cfg.val_dataloader.batch_size = 1
    assert 'val' in check(cfg)


def test_try_training_accepts_unequal_images_in_different_batches(cfg, tmp_path):
    write_set(tmp_path / 'mixed', 'val', [(32, 48)] * 2 + [(40, 48)] * 2)
    cfg.val_dataloader.dataset.data_root = str(tmp_path / 'mixed')
    cfg.val_dataloader.batch_size = 2
    assert 'val' in check(cfg)


def test_try_training_names_train_images_of_various_sizes(cfg, tmp_path):
    write_set(tmp_path / 'mixed', 'train', [(32, 48)] * 4 + [(64, 64)])
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = str(tmp_path / 'mixed')
    crop = dataset.pipeline.pop(3)
    cfg.model.data_preprocessor.update(size=(24, 24), size_divisor=None)
    message = error_of(cfg)
    assert 'train_dataloader' in message and 'RandomCrop' in message
    assert 'set model.data_preprocessor.size' in message
    assert 'size_divisor there to None' in message
    dataset.pipeline.insert(3, crop)
    assert 'train' in check(cfg)


# --- The run afterwards -------------------------------------------------------------


def test_try_run_leaves_training_bit_identical(cfg, tmp_path):
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    weights = []
    for tried in (False, True):
        run = copy.deepcopy(cfg)
        run.work_dir = str(tmp_path / str(tried))
        torch.manual_seed(1)
        random.seed(1)
        prepare_run(run, LOADERS, training=True)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
        if tried:
            try_training(run)
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
        assert torch.equal(before[0], after[0]) and before[1] == after[1]
        assert (before[2] == after[2]).all()
        weights.append(build_runner(run).train().state_dict())
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_try_run_writes_nothing(cfg, tmp_path):
    prepare_run(cfg, LOADERS, training=True, keep_folder=False)
    try_training(cfg)
    assert list(tmp_path.iterdir()) == []


# --- MMSegmentation's own configs -----------------------------------------------------


def write_cityscapes(folder):
    """Write two images of each split in Cityscapes' layout."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for i in range(2):
            for kind, end, size in (('leftImg8bit', 'leftImg8bit', (64, 96, 3)),
                                    ('gtFine', 'gtFine_labelTrainIds', (64, 96))):
                file = folder / kind / split / f'{i}_{end}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 19, size, np.uint8)).save(file)


@pytest.mark.parametrize('name', [
    'stdc/stdc1_4xb12-80k_cityscapes-512x1024.py',
    'fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py'])
def test_try_training_accepts_stock_config(tmp_path, name):
    folder = Path(mmseg.__file__).parent / '.mim/configs'
    if not folder.is_dir():
        pytest.skip('mmsegmentation is installed without its configs')
    write_cityscapes(tmp_path / 'data')
    cfg = Config.fromfile(folder / name)
    cfg.work_dir = str(tmp_path / 'work')
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.num_workers = 0
        loader.dataset.data_root = str(tmp_path / 'data')
    cfg.train_dataloader.batch_size = 2
    for step in cfg.train_dataloader.dataset.pipeline:
        if 'crop_size' in step:
            step.crop_size = (64, 64)
        if 'scale' in step:
            step.scale = (96, 64)
    cfg.val_dataloader.dataset.pipeline[1].scale = (96, 64)
    cfg.model.data_preprocessor.size = (64, 64)
    assert 'train, val' in check(cfg)
