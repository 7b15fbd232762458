"""Test that a checkpoint is whole at any moment, and that the newest one is found."""
import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from input_errors import error_of
from mmengine.runner import Runner
from small_runs import (
    Stop,
    StopAt,
    build,
    by_epochs,
    quick,
    tiny_config,
    train,
    write_set,
)

from mmseg_encstdc.engine import newest_checkpoint
from mmseg_encstdc.engine.saving import UNFINISHED, replace_file


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    quick(monkeypatch)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp('data'))


@pytest.fixture
def cfg(data, tmp_path):
    cfg = tiny_config(data, tmp_path / 'work', iterations=6)
    cfg.train_cfg.val_interval = 2
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    return cfg


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth*'))


# --- replace_file ----------------------------------------------------------------


def test_replace_file_writes_whole_file(tmp_path):
    replace_file(str(tmp_path / 'a'), lambda path: open(path, 'w').write('new'))
    assert [p.name for p in tmp_path.iterdir()] == ['a']
    assert (tmp_path / 'a').read_text() == 'new'


@pytest.mark.parametrize('stage', ['write', 'fsync', 'replace'])
def test_replace_file_keeps_old_file_on_full_disk(tmp_path, monkeypatch, stage):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(path):
        with open(path, 'w') as file:
            file.write('half')
        if stage == 'write':
            fail()

    (tmp_path / 'a').write_text('old')
    if stage != 'write':
        monkeypatch.setattr(os, stage, fail)
    message = error_of(replace_file, str(tmp_path / 'a'), write)
    assert 'a cannot be written: No space left on device' in message
    assert [p.name for p in tmp_path.iterdir()] == ['a']
    assert (tmp_path / 'a').read_text() == 'old'


def test_replace_file_keeps_old_file_if_write_ends_halfway(tmp_path):
    (tmp_path / 'a').write_text('old')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        message = error_of(replace_file, str(tmp_path / 'a'),
                           lambda path: Path(path).write_bytes(b'x' * 9000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 'a cannot be written: File too large' in message
    assert [p.name for p in tmp_path.iterdir()] == ['a']
    assert (tmp_path / 'a').read_text() == 'old'


def test_replace_file_removes_unfinished_file_at_ctrl_c(tmp_path):
    def write(path):
        open(path, 'w').close()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(str(tmp_path / 'a'), write)
    assert list(tmp_path.iterdir()) == []


# --- SafeCheckpointHook ----------------------------------------------------------


class Watch(StopAt):
    """Note which checkpoints there are whenever one is about to be written."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def before_save_checkpoint(self, runner, checkpoint):
        self.seen.append(names(self.folder))

    def after_train_iter(self, runner, *args, **kwargs):
        pass


def test_checkpoint_hook_removes_previous_after_new_is_written(cfg, tmp_path):
    watch = Watch(tmp_path / 'work')
    runner = build(cfg)
    runner.register_hook(watch)
    runner.train()
    assert any('iter_2.pth' in seen for seen in watch.seen)
    for before, seen in zip(watch.seen, watch.seen[1:]):
        for kind in ('iter_', 'best_'):
            had = [n for n in before if n.startswith(kind)]
            assert not had or [n for n in seen if n.startswith(kind)], watch.seen
    found = names(tmp_path / 'work')
    assert 'iter_6.pth' in found and len(found) == 2, found
    pointer = (tmp_path / 'work' / 'last_checkpoint').read_text()
    assert pointer == str(tmp_path / 'work' / 'iter_6.pth')


@pytest.mark.parametrize('method', ['replace', 'fsync'])
@pytest.mark.parametrize('failing', ['iter_4', 'best_mIoU_iter_2', 'last_checkpoint'])
def test_checkpoint_hook_keeps_whole_files_when_disk_fills(
        cfg, tmp_path, monkeypatch, failing, method):
    stock = getattr(os, method)

    def full(first, *args):
        path = first if isinstance(first, str) else os.readlink(
            f'/proc/self/fd/{first}')
        if failing in path and 'iter_2.pth' in ' '.join(names(tmp_path / 'work')):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return stock(first, *args)

    monkeypatch.setattr(os, method, full)
    message = error_of(build(cfg).train)
    assert failing in message and 'No space left' in message
    found = names(tmp_path / 'work')
    assert not [name for name in found if name.endswith(UNFINISHED)]
    for name in found:
        torch.load(tmp_path / 'work' / name)
    assert newest_checkpoint(cfg.work_dir).content['meta']['iter'] >= 2


def test_checkpoint_hook_replaces_stock_hook_and_default(cfg):
    for hook in (dict(type='CheckpointHook', interval=2, by_epoch=False), None):
        if hook:
            cfg.default_hooks.checkpoint = hook
        else:
            cfg.default_hooks.pop('checkpoint')
        kinds = [type(h).__name__ for h in build(cfg).hooks]
        assert 'SafeCheckpointHook' in kinds and 'CheckpointHook' not in kinds
        assert cfg.default_hooks.get('checkpoint') == hook  # what is dumped


def test_checkpoint_hook_removes_what_a_killed_run_left(cfg, tmp_path):
    train(cfg, stop=5)
    left = tmp_path / 'work' / f'iter_6.pth{UNFINISHED}'
    left.write_text('half')
    state = newest_checkpoint(cfg.work_dir)
    outdated = state.content['message_hub']['runtime_info']['outdated_ckpts']
    assert outdated == ['iter_2.pth']
    shutil.copy(state.path, tmp_path / 'work' / 'iter_2.pth')  # killed before removal
    train(cfg, state.path)
    assert not left.exists() and 'iter_2.pth' not in names(tmp_path / 'work')


def test_checkpoint_hook_keeps_best_of_other_work_dir(cfg, tmp_path):
    train(cfg, stop=5)
    before = names(tmp_path / 'work')
    cfg.work_dir = str(tmp_path / 'other')
    train(cfg, tmp_path / 'work' / 'iter_4.pth')
    assert names(tmp_path / 'work') == before


def test_checkpoint_hook_finds_best_in_moved_folder(cfg, tmp_path):
    train(cfg, stop=5)
    os.rename(tmp_path / 'work', tmp_path / 'moved')
    cfg.work_dir = str(tmp_path / 'moved')
    train(cfg, newest_checkpoint(cfg.work_dir).path)
    best = [n for n in names(tmp_path / 'moved') if n.startswith('best_')]
    assert len(best) == 1
    assert not (tmp_path / 'work').exists()


def test_validation_alone_works_with_save_best(cfg, tmp_path):
    train(cfg)
    cfg.load_from = str(tmp_path / 'work' / 'iter_6.pth')
    cfg.work_dir = str(tmp_path / 'val')
    assert 'mIoU' in Runner.from_cfg(cfg).val()
    assert 'mIoU' in Runner.from_cfg(cfg).test()
    assert names(tmp_path / 'val') == []


class StopInValidation(StopAt):
    """Stop in the first validation."""

    def __init__(self):
        pass

    def after_train_iter(self, runner, *args, **kwargs):
        pass

    def before_val(self, runner):
        raise Stop


@pytest.mark.parametrize('make', [lambda cfg: cfg, by_epochs])
def test_resumed_run_repeats_validation_that_was_stopped(cfg, tmp_path, make):
    cfg = make(cfg)
    cfg.train_cfg.val_interval = 1 if 'max_epochs' in cfg.train_cfg else 2
    runner = build(cfg)
    runner.register_hook(StopInValidation())
    with pytest.raises(Stop):
        runner.train()
    assert [n for n in names(tmp_path / 'work') if n.startswith('best_')] == []
    first = newest_checkpoint(cfg.work_dir)
    train(cfg, first.path)
    cfg.work_dir = str(tmp_path / 'uninterrupted')
    train(cfg)
    assert names(tmp_path / 'work') == names(tmp_path / 'uninterrupted')


# --- newest_checkpoint -------------------------------------------------------------


def save(folder, name, iteration, **more):
    folder.mkdir(exist_ok=True)
    torch.save(dict(state_dict={'w': torch.ones(9)}, meta=dict(iter=iteration), **more),
               folder / name)


def test_newest_checkpoint_has_largest_iteration(tmp_path):
    for name, iteration in (('iter_9.pth', 9), ('iter_10.pth', 10),
                            ('epoch_2.pth', 12), ('best_mIoU_iter_20.pth', 20)):
        save(tmp_path, name, iteration)
    assert newest_checkpoint(str(tmp_path)).path == str(tmp_path / 'epoch_2.pth')


@pytest.mark.parametrize('pointer', [
    None, '', '/nowhere/iter_9.pth', 'iter_5.pth', '\x00'])
def test_newest_checkpoint_does_not_depend_on_pointer(tmp_path, pointer):
    save(tmp_path, 'iter_5.pth', 5)
    save(tmp_path, 'iter_9.pth', 9)
    if pointer is not None:
        (tmp_path / 'last_checkpoint').write_text(pointer)
    assert newest_checkpoint(str(tmp_path)).path == str(tmp_path / 'iter_9.pth')


@pytest.mark.parametrize('content', [b'', b'text', 'half'])
def test_newest_checkpoint_leaves_out_damaged_file(tmp_path, caplog, content):
    save(tmp_path, 'iter_5.pth', 5)
    save(tmp_path, 'iter_9.pth', 9)
    whole = (tmp_path / 'iter_9.pth').read_bytes()
    (tmp_path / 'iter_9.pth').write_bytes(
        whole[:len(whole) // 2] if content == 'half' else content)
    assert newest_checkpoint(str(tmp_path)).path == str(tmp_path / 'iter_5.pth')
    assert f'{tmp_path}/iter_9.pth is damaged and left out' in caplog.text


def test_newest_checkpoint_is_no_file_of_a_bad_loss(tmp_path):
    torch.save(dict(iteration=7), tmp_path / 'bad_loss_iter_7.pth')
    assert newest_checkpoint(str(tmp_path)) is None


def test_newest_checkpoint_of_new_folder_is_none(tmp_path):
    assert newest_checkpoint(str(tmp_path), str(tmp_path / 'no')) is None


def test_newest_checkpoint_rejects_folder_of_damaged_files(tmp_path):
    (tmp_path / 'iter_5.pth').write_bytes(b'')
    message = error_of(newest_checkpoint, str(tmp_path))
    assert 'iter_5.pth cannot be read; remove it to start anew' in message


