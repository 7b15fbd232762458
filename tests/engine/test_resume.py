"""Test that a stopped run goes on as if it had not been stopped."""
import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from small_runs import (
    build,
    by_epochs,
    differing,
    quick,
    small_config,
    tiny_config,
    train,
    write_set,
)
from torch.utils.data import BatchSampler, DataLoader

from mmseg_encstdc.engine.seeding import (
    SeededBatches,
    seed_generators,
    seeded_loader,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    quick(monkeypatch)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp('data'))


def check_bit_equal(make, tmp_path, stop, state):
    """Compare the weights of a run with those of one that stops and resumes."""
    whole = train(make(tmp_path / 'whole'))
    cfg = make(tmp_path / 'parts')
    train(cfg, stop=stop)
    assert differing(whole, train(cfg, tmp_path / 'parts' / state)) == []
    return whole


# --- Seeds -------------------------------------------------------------------------


def test_seed_generators_determines_all_three():
    def draw(*numbers):
        seed_generators(*numbers)
        import random
        return random.random(), np.random.rand(), float(torch.rand(()))

    assert draw(0, 5) == draw(0, 5)
    assert not {*draw(0, 5)} & {*draw(0, 6)} and not {*draw(0, 5)} & {*draw(1, 5)}


class Random(torch.utils.data.Dataset):
    """A data set whose samples are random numbers."""
    metainfo = dict(classes=('a', ))

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return index, np.random.randint(10**9), float(torch.rand(()))


def batches_of(workers, passes=2, skip=0, sampler=DefaultSampler):
    dataset = Random()
    loader = seeded_loader(DataLoader(
        dataset, 2, sampler=sampler(dataset, seed=3), num_workers=workers,
        collate_fn=list))
    loader.batch_sampler.seed = 5
    loader.batch_sampler.skip(skip)
    found = []
    while loader.batch_sampler.passes < passes:
        if hasattr(loader.batch_sampler.sampler, 'set_epoch'):
            loader.batch_sampler.sampler.set_epoch(loader.batch_sampler.passes)
        for batch in loader:
            found.append(batch)
            if len(found) == 8 and sampler is InfiniteSampler:
                return found
    return found


@pytest.mark.parametrize('sampler', [DefaultSampler, InfiniteSampler])
def test_seeded_loader_gives_same_samples_for_any_workers(sampler):
    alone = batches_of(0, sampler=sampler)
    assert len(alone) == 8
    assert len({sample[1] for batch in alone for sample in batch}) == sum(
        map(len, alone))
    assert batches_of(2, sampler=sampler) == alone


@pytest.mark.parametrize('skip', [1, 3, 4, 5, 7])
def test_seeded_loader_begins_at_any_batch(skip):
    assert batches_of(0, skip=skip) == batches_of(0)[skip:]
    longer = batches_of(0, sampler=InfiniteSampler)
    assert batches_of(0, skip=skip, sampler=InfiniteSampler)[:8 - skip] == longer[skip:]


def test_seeded_batches_skip_loads_nothing():
    class Unreadable(Random):
        def __getitem__(self, index):
            raise AssertionError

    sampler = InfiniteSampler(Unreadable(), seed=0)
    batches = SeededBatches(BatchSampler(sampler, 16, True))
    batches.skip(40_000)
    assert len(next(iter(batches))) == 16


def test_seeded_loader_keeps_attributes_of_loader_and_dataset():
    stock = DataLoader(Random(), 3, drop_last=True, num_workers=1, timeout=9,
                       persistent_workers=True)
    loader = seeded_loader(stock)
    assert (len(loader), loader.num_workers, loader.timeout) == (2, 1, 9)
    assert loader.persistent_workers and loader.collate_fn is stock.collate_fn
    assert loader.dataset.metainfo == Random.metainfo and len(loader.dataset) == 7
    assert loader.batch_sampler.batch_size == 3 and loader.batch_sampler.drop_last


# --- Runs --------------------------------------------------------------------------


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('name', ['stdc1_camvid', 'encnet_r18_camvid'])
def test_resumed_run_is_bit_equal(data, tmp_path, name, workers):
    check_bit_equal(lambda work: small_config(
        data, work, name, iterations=4, workers=workers), tmp_path, 4, 'iter_2.pth')


@pytest.mark.parametrize('workers', [0, 2])
def test_resumed_run_of_epochs_is_bit_equal(data, tmp_path, workers):
    check_bit_equal(lambda work: by_epochs(tiny_config(data, work, workers=workers)),
                    tmp_path, 5, 'epoch_1.pth')


def test_run_does_not_depend_on_workers(data, tmp_path):
    alone, both = (train(tiny_config(data, tmp_path / str(n), iterations=4, workers=n))
                   for n in (0, 2))
    assert differing(alone, both) == []


def without_seed(cfg):
    cfg.randomness = dict(seed=None)


def with_average(cfg):
    cfg.custom_hooks = [dict(type='EMAHook')]


def in_channels_last(cfg):
    cfg.custom_hooks = [dict(type='ChannelsLast')]


def with_rare_classes(cfg):
    cfg.train_dataloader.sampler = dict(type='RareClassSampler', temperature=1)


def by_default_sampler(cfg):
    """Go through the set of 5 images twice before the checkpoint at 4."""
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)


def repeated(cfg):
    part = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2,
        dataset=dict(type='ConcatDataset', datasets=[part, part]))


def with_rank_seeds(cfg):
    cfg.randomness = dict(seed=None, diff_rank_seed=True)


def on_plateau(cfg):
    cfg.train_cfg.val_interval = 1
    cfg.param_scheduler = [dict(type='ReduceOnPlateauLR', monitor='mIoU', patience=0,
                                rule='greater', by_epoch=True)]


@pytest.mark.parametrize('change', [
    without_seed, with_average, by_default_sampler, repeated, with_rank_seeds,
    on_plateau, in_channels_last, with_rare_classes])
def test_resumed_run_is_bit_equal_with(data, tmp_path, monkeypatch, change):
    monkeypatch.setattr('time.sleep', lambda _: None)  # MMEngine's between two epochs

    def make(work):
        cfg = tiny_config(data, work, iterations=6)
        change(cfg)
        return cfg

    if 'seed' in change.__name__:  # two runs without a seed differ; copy a state
        check_same_continuation(make, tmp_path)
    else:
        check_bit_equal(make, tmp_path, 6, 'iter_4.pth')


def check_same_continuation(make, tmp_path):
    """Compare a run without a seed with one that resumes from a state of it."""
    cfg = make(tmp_path / 'run')
    whole = train(cfg)
    again = train(cfg, tmp_path / 'run' / 'iter_4.pth')
    assert differing(whole, again) == []


def test_resumed_run_inside_epoch_is_bit_equal(data, tmp_path):
    def make(work):
        cfg = by_epochs(tiny_config(data, work))
        cfg.train_dataloader.batch_size = 1  # 5 iterations in an epoch
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=3)
        return cfg

    check_bit_equal(make, tmp_path, 8, 'iter_6.pth')


def test_resumed_run_loads_no_batch_again(data, tmp_path, monkeypatch):
    cfg = tiny_config(data, tmp_path / 'run', iterations=6)
    train(cfg)
    loaded = []
    from mmseg_encstdc.datasets import CamVidDataset
    stock = CamVidDataset.__getitem__
    monkeypatch.setattr(CamVidDataset, '__getitem__',
                        lambda self, i: loaded.append(
                            self.data_prefix['img_path']) or stock(self, i))
    train(cfg, tmp_path / 'run' / 'iter_4.pth')
    images = [folder for folder in loaded if folder.endswith('train')]
    assert len(images) == 2 * cfg.train_dataloader.batch_size


def test_custom_loop_keeps_loader_of_mmengine(data, tmp_path):
    from mmengine.runner import IterBasedTrainLoop

    class OwnLoop(IterBasedTrainLoop):
        pass

    cfg = tiny_config(data, tmp_path / 'run', iterations=2)
    cfg.train_cfg.type = OwnLoop
    runner = build(cfg)
    assert type(runner.build_train_loop(cfg.train_cfg)) is OwnLoop


@pytest.mark.parametrize('loop, expected', [
    (dict(by_epoch=True, max_epochs=1), 'SeededEpochLoop'),
    (dict(by_epoch=False, max_iters=1), 'SeededIterLoop'),
    (dict(type='mmengine.IterBasedTrainLoop', max_iters=1), 'SeededIterLoop')])
def test_training_runner_replaces_stock_loops(data, tmp_path, loop, expected):
    cfg = by_epochs(tiny_config(data, tmp_path / 'run'))
    runner = build(cfg)
    assert type(runner.build_train_loop(loop)).__name__ == expected
