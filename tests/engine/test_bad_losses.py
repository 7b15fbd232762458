"""Test stopping at a loss or gradient that is NaN or infinite, and replaying it."""
import copy
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmseg.registry import MODELS
from small_run import free_port, write_run
from tool_process import run_tool
from torch import nn

from mmseg_encstdc.engine import StopAtBadLoss, check_fits, replay
from mmseg_encstdc.errors import InputError

NAN, INF = float('nan'), float('inf')


@MODELS.register_module()
class Net(BaseModel):
    """Return two losses; an image of a value above 9 makes one or a gradient bad."""

    def __init__(self, bad=NAN):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(2)
        self.drop = nn.Dropout(0.5)
        self.register_buffer('mask', torch.tensor([-INF, 0.0]))
        self.bad = bad

    def forward(self, inputs, data_samples=None, mode='loss'):
        images = torch.stack(list(inputs))
        x = self.drop(self.norm(self.layer(images)))
        second = x.square().mean() / 3
        if images.max() > 9 and self.bad == 'gradient':
            second = second + (x * 0).square().sum().sqrt()  # 0 with the gradient NaN
        elif images.max() > 9:
            second = second * self.bad
        return dict(loss_first=x.mean(), loss_second=second)


class Images(torch.utils.data.Dataset):
    """Eight images in order; number 5 has the value 10."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        values = torch.randn(4, generator=torch.Generator().manual_seed(i))
        return dict(inputs=values + 10 * (i == 5), data_samples=BaseDataElement(
            metainfo=dict(img_path=f'image{i}.png', img_shape=(2, 2))))


class Scaling(OptimWrapper):
    """Scale the loss and leave out steps of infinite gradients, as AMP on a GPU."""

    def __init__(self, scale=2.0**16, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)

    def backward(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


def runner_of(folder, hook, bad=NAN, wrapper=OptimWrapper, more_hooks=(), **options):
    """Return a runner that trains Net on Images, 2 a step: step 3 is bad."""
    torch.manual_seed(0)
    model = Net(bad)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = torch.utils.data.DataLoader(
        Images(), 2, collate_fn=lambda items: {
            key: [item[key] for item in items] for key in items[0]})
    runner = Runner(
        model=model, work_dir=str(folder), train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=wrapper(optimizer=optimizer, **options),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        custom_hooks=[hook, *more_hooks], log_level='WARNING',
        experiment_name=f'{folder}')
    runner.cfg.model = dict(type='Net', bad=bad)
    return runner


def fails(runner):
    """Train; return the message of the error."""
    with pytest.raises(InputError) as caught:
        runner.train()
    return str(caught.value)


@pytest.mark.parametrize('bad, what', [
    (NAN, 'loss loss_second'), (INF, 'loss loss_second'),
    ('gradient', 'the gradient of layer.weight')])
def test_stop_names_iteration_loss_and_images(tmp_path, bad, what):
    runner = runner_of(tmp_path, StopAtBadLoss(), bad)
    line = fails(runner)
    path = tmp_path / 'bad_loss_iter_3.pth'
    assert line == (
        f'iteration 3: {what} is not finite; images image4.png, image5.png; '
        f'tools/train.py CONFIG --replay {path} repeats the step; '
        'bad_losses=dict(skip=1) in the config leaves out 1 of them')
    assert all(torch.isfinite(p).all() for p in runner.model.parameters())
    assert not list(tmp_path.glob('*.new'))


@pytest.mark.parametrize('bad, line', [
    (NAN, 'the first module whose output is not finite'), ('gradient', 'layer.weight')])
def test_replay_repeats_losses(tmp_path, bad, line):
    """Dropout draws as it did, so the losses are those of the training."""
    class Note(StopAtBadLoss):
        def _may_step(self, runner):
            self.parts = {k: float(v) for k, v in self._losses[-1].items()}
            return super()._may_step(runner)

    hook = Note()
    runner = runner_of(tmp_path, hook, bad)
    fails(runner)
    torch.manual_seed(99)
    lines = replay(runner.cfg, str(tmp_path / 'bad_loss_iter_3.pth'))
    assert lines[0] == 'iteration 3'
    assert f'loss_first: {hook.parts["loss_first"]}' in lines
    if bad == 'gradient':
        assert line in lines[-1]
    else:  # Net's own product, not that of a module
        assert 'outputs of all modules' in lines[-1] and 'loss_second: nan' in lines


def weights_of(runner):
    """Return copies of all weights, buffers and momenta."""
    state = {k: v.clone() for k, v in runner.model.state_dict().items()}
    momenta = runner.optim_wrapper.optimizer.state_dict()['state']
    return state, {k: v['momentum_buffer'].clone() for k, v in momenta.items()}


class After(StopAtBadLoss):
    """Note weights and momenta after each iteration."""

    def before_train(self, runner):
        super().before_train(runner)
        self.after = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.after.append(weights_of(runner))


@pytest.mark.parametrize('bad', [NAN, 'gradient'])
def test_skip_leaves_state_as_before_step(tmp_path, bad):
    hook = After(skip=1)
    runner = runner_of(tmp_path, hook, bad)
    runner.train()
    for before, after in zip(hook.after[1], hook.after[2]):
        assert all(torch.equal(before[k], after[k]) for k in before)
    state, _ = hook.after[3]
    assert not torch.equal(state['layer.weight'], hook.after[2][0]['layer.weight'])
    assert all(torch.isfinite(v).all() for k, v in state.items() if k != 'mask')
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert saved['message_hub']['runtime_info']['skipped_bad_losses'] == 1


def test_skip_stops_after_its_number(tmp_path):
    runner = runner_of(tmp_path, StopAtBadLoss(skip=1))
    runner.train_loop._max_epochs = 2
    line = fails(runner)
    assert line.startswith('iteration 7: loss loss_second') and 'skip=2' in line


def test_good_run_is_bit_equal(tmp_path):
    hook = After()
    guarded = runner_of(tmp_path / 'a', hook, bad=1.0)
    plain = runner_of(tmp_path / 'b', StopAtBadLoss(), bad=1.0)
    plain.hooks.remove(next(h for h in plain.hooks if isinstance(h, StopAtBadLoss)))
    for runner in (guarded, plain):
        torch.manual_seed(1)
        runner.train()
    for one, other in zip(weights_of(guarded), weights_of(plain)):
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_accumulation_names_batch_of_bad_loss(tmp_path):
    """Steps are after 2 and 4 iterations; the third has the bad loss."""
    hook = After(skip=1)
    runner = runner_of(tmp_path, hook, accumulative_counts=2)
    runner.train()
    before, after = hook.after[1][0], hook.after[3][0]
    assert all(torch.equal(before[k], after[k]) for k in before)
    runner = runner_of(tmp_path / 'stop', StopAtBadLoss(), accumulative_counts=2)
    assert 'iteration 3' in fails(runner)


def test_amp_overflow_is_left_to_scaler(tmp_path):
    """A scale that is too large makes the gradients infinite, and then falls."""
    runner = runner_of(tmp_path, StopAtBadLoss(), bad=1.0, wrapper=Scaling,
                       scale=2.0**127)
    runner.train()
    assert runner.optim_wrapper.loss_scaler.get_scale() < 2.0**127


@pytest.mark.parametrize('bad, scale', [(NAN, 2.0**16), ('gradient', 1.0)])
def test_amp_bad_loss_stops(tmp_path, bad, scale):
    runner = runner_of(tmp_path, StopAtBadLoss(), bad, wrapper=Scaling, scale=scale)
    assert 'iteration 3' in fails(runner)


class Diverge(CheckpointHook):
    """Set a weight to NaN where the optimizer would."""
    priority = 'HIGH'

    def before_train(self, runner):
        pass

    def after_train_epoch(self, runner):
        with torch.no_grad():
            runner.model.layer.bias[0] = NAN

    def after_train_iter(self, *args, **kwargs):
        pass


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    runner = runner_of(tmp_path, StopAtBadLoss(), 1.0, more_hooks=[Diverge()])
    assert 'layer.bias holds NaN' in fails(runner)
    assert not list(tmp_path.glob('*.pth'))


def test_weights_that_are_not_finite_are_not_best(tmp_path):
    hook = StopAtBadLoss()
    runner = runner_of(tmp_path, hook, 1.0)
    with torch.no_grad():
        runner.model.layer.bias[0] = INF
    with pytest.raises(InputError, match='layer.bias'):
        runner.call_hook('after_val_epoch', metrics=dict(mIoU=99.0))
    assert not list(tmp_path.glob('best*'))


@pytest.mark.parametrize('skip', [-1, 1.5, True, 'all'])
def test_skip_must_be_a_number(skip):
    with pytest.raises(InputError, match='bad_losses.skip'):
        StopAtBadLoss(skip=skip)


def test_check_fits_names_weight_that_is_not_finite():
    model = Net()
    state = copy.deepcopy(model.state_dict())
    check_fits(model, 'a.pth', state)  # the buffer holds infinity, as a mask does
    state['layer.weight'][0] = 1e30  # the sum of its squares is infinite
    check_fits(model, 'a.pth', state)
    state['norm.running_mean'][0] = NAN
    with pytest.raises(InputError, match='a.pth holds NaN or infinity in '
                                         'norm.running_mean'):
        check_fits(model, 'a.pth', state)


def test_train_stops_and_replays(tmp_path):
    """The tool, with a learning rate at which the network diverges."""
    config = write_run(tmp_path)
    arguments = ['train.py', config, '--work-dir', tmp_path / 'work', '--cfg-options',
                 'optim_wrapper.optimizer.lr=1e30']
    done = run_tool(*arguments)
    lines = [line for line in done.stderr.splitlines() if 'arn' not in line]
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert lines[0].startswith('error: iteration ') and 'not finite' in lines[0]
    path, = (tmp_path / 'work').glob('bad_loss_iter_*.pth')
    torch.load(path, weights_only=True)
    assert Path(Config.fromfile(config).data, 'images/train').as_posix() in lines[0]
    done = run_tool('train.py', config, '--replay', path)
    assert done.returncode == 0, done.stderr
    assert 'decode.loss_ce: nan' in done.stdout
    assert 'the first module whose output is not finite is ' in done.stdout


TWO_RANKS = """
    import sys
    sys.path[:0] = [{tests!r}, {engine!r}]
    import torch
    from mmengine.config import Config
    from mmengine.dist import get_rank
    import test_bad_losses as t
    from mmseg_encstdc.engine import (
        CPUDistributedDataParallel, StopAtBadLoss, start_processes, stop_processes)
    from mmseg_encstdc.errors import one_line_errors

    def run(skip):
        runner = t.runner_of(sys.argv[1] + f'/skip{{skip}}', StopAtBadLoss(skip))
        if get_rank() == 0:
            runner.model.bad = 1.0  # the loss is NaN in rank 1 alone
        runner.model = CPUDistributedDataParallel(runner.model)
        runner.train()
        torch.save(runner.model.module.state_dict(),
                   sys.argv[1] + f'/skip{{skip}}/{{get_rank()}}')

    with one_line_errors():
        start_processes(Config(dict()), 'pytorch')
        run(1)
        run(0)
"""


def test_loss_of_one_rank_stops_and_skips_in_all(tmp_path):
    tests = Path(__file__).parents[1]
    script = tmp_path / 'script.py'
    script.write_text(textwrap.dedent(TWO_RANKS.format(
        tests=str(tests), engine=str(tests / 'engine'))))
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', tests.parent / 'tools/dist_run.py', '2',
         script, tmp_path], capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': str(tests.parent), 'OMP_NUM_THREADS': '1',
             'PYTHONWARNINGS': 'ignore', 'PORT': free_port()})
    first, second = (torch.load(tmp_path / 'skip1' / rank) for rank in '01')
    for name in ('layer.weight', 'layer.bias', 'norm.weight'):
        assert torch.isfinite(first[name]).all()
        assert torch.equal(first[name], second[name])
    assert done.returncode == 1
    line, = done.stderr.strip().splitlines()
    path = tmp_path / 'skip0/bad_loss_iter_3_rank1.pth'
    assert 'iteration 3: loss loss_second is not finite' in line and str(path) in line
    assert [p.name for p in (tmp_path / 'skip0').glob('bad*')] == [path.name]
