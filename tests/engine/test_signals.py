"""Test the checkpoints that a training saves when it is stopped."""
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import EMAHook, Hook
from test_bad_losses import runner_of

from mmseg_encstdc.engine import StopAtBadLoss, StopAtSignal, StopSignals
from mmseg_encstdc.engine.signals import Stopped


class Signal(Hook):
    """Note a signal in an iteration."""

    def __init__(self, signals, iteration):
        self.signals = signals
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration:
            self.signals.number = 15


def stopped(folder, iteration, epochs=2, more_hooks=()):
    """Train 4 iterations an epoch until a signal; return runner and message."""
    signals = StopSignals()
    runner = runner_of(folder, StopAtBadLoss(), 1.0, more_hooks=[
        Signal(signals, iteration), StopAtSignal(signals), *more_hooks])
    runner.train_loop._max_epochs = epochs
    with pytest.raises(Stopped) as caught:
        runner.train()
    return runner, caught.value


@pytest.mark.parametrize('iteration, name, epoch', [
    (2, 'iter_2.pth', 0), (4, 'epoch_1.pth', 1), (6, 'iter_6.pth', 1)])
def test_stop_saves_within_and_between_epochs(tmp_path, iteration, name, epoch):
    runner, error = stopped(tmp_path, iteration)
    path = tmp_path / name
    saved = torch.load(path, weights_only=False)
    assert saved['meta']['iter'] == iteration and saved['meta']['epoch'] == epoch
    assert all(torch.equal(value, saved['state_dict'][key])
               for key, value in runner.model.state_dict().items())
    assert 'optimizer' in saved
    assert (tmp_path / 'last_checkpoint').read_text() == str(path)
    assert error.number == 15
    assert error.line == (
        f'stopped by SIGTERM after iteration {iteration}; the last checkpoint is '
        f'{path}, continue from it with the same command and --resume')


def test_stop_that_ends_in_the_write_leaves_no_damaged_file(tmp_path, monkeypatch):
    def put(self, content, path):
        Path(path).write_bytes(content[:len(content) // 2])
        raise MemoryError

    monkeypatch.setattr(LocalBackend, 'put', put)
    with pytest.raises(MemoryError):
        stopped(tmp_path, 2)
    assert list(tmp_path.glob('*.pth')) == []


def test_stop_in_validation_saves_weights_and_averages(tmp_path):
    """EMAHook puts its averages into the model while it validates."""
    signals = StopSignals()
    ema = EMAHook(momentum=0.5)
    hook = StopAtSignal(signals)
    runner = runner_of(tmp_path, StopAtBadLoss(), 1.0, more_hooks=[ema, hook])
    runner.train()
    weights = {k: v.clone() for k, v in runner.model.state_dict().items()}
    signals.training, signals.number = True, 10
    for path in tmp_path.glob('epoch*'):
        path.unlink()
    hooks = [h for h in runner.hooks if getattr(h, 'last_ckpt', None)]
    for checkpoint in hooks:
        checkpoint.last_ckpt = None
    ema.before_val_epoch(runner)
    with pytest.raises(Stopped):
        hook.after_val_iter(runner, 0)
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    averages = {k.replace('module.', ''): v for k, v in saved['state_dict'].items()}
    assert not torch.equal(averages['layer.weight'], weights['layer.weight'])
    kept = {k.replace('module.', ''): v for k, v in saved['ema_state_dict'].items()}
    assert torch.equal(kept['layer.weight'], weights['layer.weight'])
