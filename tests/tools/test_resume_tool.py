"""Run tools/train.py --resume: what it continues from, refuses and says."""
import copy
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / 'tools'), str(ROOT / 'tests' / 'engine')]

import train as train_tool  # noqa: E402
from small_runs import (  # noqa: E402
    Stop,
    StopAt,
    by_epochs,
    differing,
    quick,
    tiny_config,
    write_set,
)

LENGTH = 4


@pytest.fixture
def tool(monkeypatch, capfd, caplog):
    """Return a function that runs the tool here, and returns its exit code and text."""
    quick(monkeypatch)

    def run(config, work, *words, **options):
        options['experiment_name'] = f'run{time.time_ns()}'
        monkeypatch.setattr(sys, 'argv', [
            'train.py', str(config), '--work-dir', str(work), *map(str, words),
            '--cfg-options', *(f'{k}={v}' for k, v in options.items())])
        caplog.clear()
        code = 0
        try:
            train_tool.main()
        except SystemExit as stop:
            code = stop.code
        out = ''.join(capfd.readouterr()) + caplog.text
        return (1, out + code) if isinstance(code, str) else (code, out)

    return run


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Return a config file and the work dir of its run of four iterations."""
    folder = tmp_path_factory.mktemp('trained')
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        cfg = tiny_config(write_set(folder / 'data'), folder / 'work',
                          iterations=LENGTH)
        cfg.default_hooks.checkpoint.max_keep_ckpts = 3
        cfg.dump(folder / 'config.py')
        sys.argv = ['train.py', str(folder / 'config.py'), '--work-dir',
                    str(folder / 'work')]
        train_tool.main()
    return folder / 'config.py', folder / 'work'


@pytest.fixture
def run(trained, tmp_path):
    """Return the config and a copy of the work dir, which a test may change."""
    return trained[0], Path(shutil.copytree(trained[1], tmp_path / 'copy'))


def rates(text):
    """Return the learning rates in the log of a run, by iteration."""
    return {int(line.split('[')[1].split('/')[0]): float(
        line.split(' lr: ')[1].split()[0])
        for line in text.splitlines() if 'Iter(train)' in line and ' lr: ' in line}


# --- What a run continues from -------------------------------------------------------


def test_resume_of_finished_run_ends_at_once(tool, run, monkeypatch):
    monkeypatch.setattr(train_tool, 'prepare_run', None)  # which reads data
    code, text = tool(*run, '--resume')
    assert code == 0
    assert 'iter_4.pth is the end of this training: nothing is left to do' in text


def test_resume_without_pointer_takes_newest_checkpoint(tool, run):
    (run[1] / 'last_checkpoint').unlink()
    (run[1] / 'iter_4.pth').unlink()
    code, text = tool(*run, '--resume')
    assert code == 0 and 'resumed epoch: 0, iter: 2' in text


def test_resume_leaves_out_damaged_checkpoint(tool, run):
    whole = (run[1] / 'iter_4.pth').read_bytes()
    (run[1] / 'iter_4.pth').write_bytes(whole[:2000])
    code, text = tool(*run, '--resume')
    assert code == 0 and 'resumed epoch: 0, iter: 2' in text
    assert 'iter_4.pth is damaged and left out' in text
    assert (run[1] / 'iter_4.pth').read_bytes() != whole[:2000]


def test_resume_prefers_own_state_to_load_from(tool, run):
    (run[1] / 'iter_4.pth').unlink()
    code, text = tool(*run, '--resume', load_from=run[1] / 'no.pth')
    assert code == 0 and 'resumed epoch: 0, iter: 2' in text
    assert 'load_from' in text and 'is not used' in text


def test_resume_without_state_starts_from_load_from(tool, run, tmp_path):
    code, text = tool(run[0], tmp_path / 'new', '--resume',
                      load_from=run[1] / 'iter_4.pth')
    assert code == 0 and 'has no checkpoint: training starts from load_from' in text
    assert 'weights of the model are loaded from' in text
    assert 'resumed' not in text


def test_resume_without_state_starts_from_beginning(tool, run, tmp_path):
    code, text = tool(run[0], tmp_path / 'new', '--resume')
    assert code == 0 and 'training starts from the beginning' in text


def test_resume_with_damaged_checkpoints_alone_is_one_line(tool, run):
    for path in run[1].glob('*.pth'):
        path.write_bytes(b'')
    code, text = tool(*run, '--resume')
    assert code == 1 and 'error: there is no checkpoint to continue from' in text
    assert 'iter_4.pth' in text and 'Traceback' not in text


def test_resume_names_newer_checkpoint(tool, run):
    code, text = tool(*run, '--resume', run[1] / 'iter_2.pth')
    assert code == 0 and 'resumed epoch: 0, iter: 2' in text
    assert 'iter_4.pth is newer than' in text


def test_resume_of_moved_folder(tool, run, tmp_path):
    (run[1] / 'iter_4.pth').unlink()
    moved = run[1].rename(tmp_path / 'moved')
    code, text = tool(run[0], moved, '--resume')
    assert code == 0 and 'resumed epoch: 0, iter: 2' in text
    assert not run[1].exists()


# --- What it holds -----------------------------------------------------------------


def test_resume_refuses_best_checkpoint_without_optimizer(tool, run):
    best = next(run[1].glob('best_*.pth'))
    code, text = tool(*run, '--max-iters', 8, '--resume', best)
    assert code == 1 and 'has no optimizer and no param_schedulers' in text
    assert f'load_from={best}' in text and 'iter_*.pth' in text


def test_resume_refuses_other_optimizer(tool, run, tmp_path):
    cfg = Config.fromfile(run[0])
    cfg.optim_wrapper.optimizer = dict(type='Adam', lr=0.01)
    cfg.dump(tmp_path / 'adam.py')
    code, text = tool(tmp_path / 'adam.py', run[1], '--max-iters', 8, '--resume')
    assert code == 1 and 'SGD' in text
    assert 'optim_wrapper.optimizer.type is Adam' in text


def poly(iteration, length, base=0.01):
    return base * (1 - iteration / (length - 1))**0.9


@pytest.mark.parametrize('longer', [8, 12])
def test_resume_with_longer_schedule_uses_its_rates(tool, run, longer):
    code, text = tool(*run, '--max-iters', longer, '--resume')
    assert code == 0
    assert 'the schedule is that of the config, from iteration 4 on: ' in text
    assert f'train_cfg.max_iters is {longer}, in the checkpoint 4' in text
    found = rates(text)
    assert set(found) == {*range(5, longer + 1)}
    for iteration, rate in found.items():
        assert rate == pytest.approx(poly(iteration - 1, longer), rel=1e-3)


def test_resume_with_same_schedule_keeps_it(tool, run):
    (run[1] / 'iter_4.pth').unlink()
    code, text = tool(*run, '--resume')
    assert code == 0 and 'the schedule is that of the config' not in text
    assert 'in the checkpoint' not in text
    assert rates(text)[3] == pytest.approx(poly(2, LENGTH), rel=1e-3)


def test_resume_refuses_run_beyond_its_schedule(tool, run):
    code, text = tool(*run, '--resume', **{'train_cfg.max_iters': 8})
    assert code == 1
    assert ('param_scheduler ends at 4 with a learning rate of 0, but '
            'train_cfg.max_iters is 8') in text
    code, text = tool(*run, '--resume', '--max-iters', 8)  # the message's remedy
    assert code == 0, text


@pytest.mark.parametrize('flags, base', [([], 0.01), (['--resume-with-config'], 0.05)])
def test_resume_says_which_learning_rate_is_used(tool, run, flags, base):
    (run[1] / 'iter_4.pth').unlink()
    code, text = tool(*run, '--resume', *flags,
                      **{'optim_wrapper.optimizer.lr': 0.05})
    assert code == 0
    assert ('optim_wrapper.optimizer.lr is 0.05, in the checkpoint 0.01: '
            f'{base} is used') in text
    assert rates(text)[3] == pytest.approx(poly(2, LENGTH, base), rel=1e-3)


def test_resume_names_other_batch_size_and_data(tool, run, tmp_path):
    (run[1] / 'iter_4.pth').unlink()
    data = shutil.copytree(run[0].parent / 'data', tmp_path / 'data')
    code, text = tool(*run, '--resume', **{
        'train_dataloader.batch_size': 3, 'train_dataloader.dataset.data_root': data})
    assert code == 0
    assert 'train_dataloader.batch_size is 3, in the checkpoint 2: 3 is used' in text
    assert 'train_dataloader.dataset.data_root is' in text


def test_resume_does_not_execute_config_of_checkpoint(tool, run, tmp_path):
    path = run[1] / 'iter_4.pth'
    path.unlink()
    path = run[1] / 'iter_2.pth'
    content = torch.load(path)
    content['meta']['config'] = content['meta']['cfg'] = (
        f'import pathlib\npathlib.Path({str(tmp_path / "made")!r}).touch()\n')
    torch.save(content, path)
    code, text = tool(*run, '--resume')
    assert code == 0 and not (tmp_path / 'made').exists()
    assert 'cannot be read and are not compared' in text


# --- Lengths -----------------------------------------------------------------------


def test_max_iters_keeps_intervals_given_by_hand(tool, run, tmp_path):
    code, text = tool(run[0], tmp_path / 'new', '--max-iters', 6, **{
        'default_hooks.checkpoint.interval': 4, 'train_cfg.val_interval': 5})
    assert code == 0
    names = {p.name for p in (tmp_path / 'new').glob('iter_*.pth')}
    assert 'iter_4.pth' in names and 'iter_3.pth' not in names
    assert [line for line in text.splitlines() if '[5/6]' in line]


def test_resume_of_more_epochs_uses_their_rates(tool, run, tmp_path):
    data = run[0].parent / 'data'
    for epochs in (2, 3):
        cfg = by_epochs(tiny_config(data, tmp_path / 'epochs'), epochs)
        cfg.dump(tmp_path / f'{epochs}.py')
    assert tool(tmp_path / '2.py', tmp_path / 'epochs')[0] == 0
    assert 'nothing is left' in tool(tmp_path / '2.py', tmp_path / 'epochs',
                                     '--resume')[1]
    code, text = tool(tmp_path / '3.py', tmp_path / 'epochs', '--resume')
    assert code == 0 and 'resumed epoch: 2, iter: 4' in text
    assert 'the schedule is that of the config, from iteration 4 on' in text
    rate = [float(line.split(' lr: ')[1].split()[0]) for line in text.splitlines()
            if 'train' in line and '[3][1/2]' in line]
    assert rate == [pytest.approx(poly(4, 6), rel=1e-3)]


@pytest.mark.slow
def test_resume_at_iteration_40000_takes_seconds(tool, tmp_path):
    data = write_set(tmp_path / 'data', train=40, size=(360, 480))
    cfg = tiny_config(data, tmp_path / 'work', iterations=2, workers=2)
    cfg.train_dataloader.batch_size = 8
    cfg.dump(tmp_path / 'config.py')
    assert tool(tmp_path / 'config.py', tmp_path / 'work')[0] == 0
    content = torch.load(tmp_path / 'work' / 'iter_2.pth')
    content['meta']['iter'] = 40_000
    for scheduler in content['param_schedulers']:
        scheduler.update(end=60_000, last_step=40_000, _global_step=40_000,
                         total_iters=59_999)
    torch.save(content, tmp_path / 'work' / 'iter_40000.pth')
    longer = copy.deepcopy(cfg)
    longer.train_cfg.update(max_iters=60_000, val_interval=60_000)
    longer.param_scheduler[0].end = 60_000
    longer.default_hooks.checkpoint.interval = 60_000
    longer.dump(tmp_path / 'longer.py')
    stock = Runner.train

    def train(self):
        self.register_hook(StopAt(40_001))
        return stock(self)

    Path('/proc/self/clear_refs').write_text('5')  # sets the peak to what is in use
    start, memory = time.time(), peak_memory()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Runner, 'train', train)
        tool(tmp_path / 'longer.py', tmp_path / 'work', '--resume')
    seconds, grown = time.time() - start, peak_memory() - memory
    print(f'{seconds:.1f} s until the first step, {grown:.0f} MiB more')
    assert seconds < 20 and grown < 100


def peak_memory():
    """Return the peak of the memory of this process in MiB."""
    text = Path('/proc/self/status').read_text()
    return int(text.split('VmHWM:')[1].split()[0]) / 1024


@pytest.mark.slow
def test_resume_of_two_processes_is_bit_equal(run, tmp_path):
    def train(work, *words):
        done = subprocess.run(
            [str(ROOT / 'tools/dist_train.sh'), str(run[0]), '2', '--work-dir',
             str(work), *map(str, words)], cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1',
                 'PORT': free_port()})
        assert done.returncode == 0, done.stderr
        return torch.load(work / 'iter_4.pth')['state_dict']

    whole = train(tmp_path / 'whole')
    again = train(tmp_path / 'again', '--resume', tmp_path / 'whole' / 'iter_2.pth')
    assert differing(whole, again) == []


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return str(s.getsockname()[1])
