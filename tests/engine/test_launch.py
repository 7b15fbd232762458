"""Test starting several processes without a GPU."""
import os
import socket
import subprocess
import sys
import textwrap
from unittest import mock

import pytest
import torch
from mmengine.config import Config

from mmseg_encstdc.engine import start_processes
from mmseg_encstdc.errors import InputError

LINE = ('SyncBN works on GPUs only: on CPU each process uses BN over its own '
        'images')
VARIABLES = {
    'pytorch': dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1',
                    MASTER_ADDR='127.0.0.1', MASTER_PORT='29501'),
    'slurm': dict(SLURM_PROCID='3', SLURM_NTASKS='8', SLURM_NODELIST='node7,node9'),
    'mpi': dict(OMPI_COMM_WORLD_RANK='3', OMPI_COMM_WORLD_SIZE='8'),
}

# Two processes start as tools/train.py does, wrap the model as the runner does, and
# train one step, each on images of its own.
TRAIN = """
    import sys
    import torch
    import torch.distributed as dist
    from mmengine.config import Config
    from mmengine.model import BaseModel, is_model_wrapper
    from mmengine.optim import OptimWrapper
    import mmseg_encstdc
    from mmseg.registry import MODEL_WRAPPERS
    from mmseg_encstdc.engine import start_processes

    class Net(BaseModel):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)
            self.norm = torch.nn.SyncBatchNorm(4)
            self.frozen = torch.nn.SyncBatchNorm(4)
            self.frozen.requires_grad_(False)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            x = self.frozen(self.norm(self.conv(inputs)))
            return dict(loss=(x - inputs.mean()).pow(3).mean())

    def gradients(model, images):
        model.zero_grad()
        model(images, mode='loss')['loss'].backward()
        return {n: p.grad.clone() for n, p in model.named_parameters()
                if p.requires_grad}

    cfg = Config(dict(find_unused_parameters=False))
    start_processes(cfg, 'pytorch')
    rank = dist.get_rank()
    torch.manual_seed(rank)  # DDP sends the weights of rank 0 to all
    wrapped = MODEL_WRAPPERS.build(
        cfg.model_wrapper_cfg,
        default_args=dict(module=Net(), device_ids=[rank]))
    assert is_model_wrapper(wrapped)
    model = wrapped.module
    before = {n: p.detach().clone() for n, p in model.named_parameters()}

    images = torch.randn(2, 2, 3, 6, 6, generator=torch.Generator().manual_seed(9))
    alone = Net()
    for name in ('norm', 'frozen'):
        setattr(alone, name, torch.nn.BatchNorm2d(4))
    alone.frozen.requires_grad_(False)
    alone.load_state_dict(model.state_dict())
    expected = [gradients(alone, images[r]) for r in (0, 1)]

    optimizer, reduced = torch.optim.SGD(model.parameters(), lr=0.1), {}
    optimizer.register_step_pre_hook(lambda *_: reduced.update(
        {n: p.grad.clone() for n, p in model.named_parameters()
         if p.requires_grad}))
    losses = wrapped.train_step(
        dict(inputs=images[rank]), OptimWrapper(optimizer))
    torch.save(dict(
        wrapper=type(wrapped).__name__, cfg=dict(cfg.model_wrapper_cfg),
        backend=dist.get_backend(), world_size=dist.get_world_size(),
        norm=type(model.norm).__name__, before=before, loss=float(losses['loss']),
        after={n: p.detach() for n, p in model.named_parameters()},
        trainable=[n for n, p in model.named_parameters() if p.requires_grad],
        gradients=reduced, mean=model.norm.running_mean, expected=expected),
        sys.argv[1])
    dist.barrier()
    dist.destroy_process_group()
"""


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return str(s.getsockname()[1])


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory):
    """Train in two processes; return what each saved, and the log of each."""
    folder = tmp_path_factory.mktemp('two_processes')
    script = folder / 'script.py'
    script.write_text(textwrap.dedent(TRAIN))
    root = os.path.dirname(os.path.dirname(sys.modules['mmseg_encstdc'].__file__))
    common = dict(os.environ, PYTHONPATH=root, WORLD_SIZE='2', OMP_NUM_THREADS='1',
                  MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port(),
                  CUDA_VISIBLE_DEVICES='')
    ranks = [
        subprocess.Popen(
            [sys.executable, '-W', 'ignore', str(script), str(folder / f'{rank}.pth')],
            env=dict(common, RANK=str(rank), LOCAL_RANK=str(rank)), cwd=folder,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for rank in (0, 1)
    ]
    logs = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], logs
    saved = [torch.load(folder / f'{rank}.pth') for rank in (0, 1)]
    return saved, logs


def test_start_processes_chooses_gloo_and_cpu_wrapper(two_processes):
    for found in two_processes[0]:
        assert found['backend'] == 'gloo'
        assert found['world_size'] == 2
        assert found['wrapper'] == 'CPUDistributedDataParallel'
        assert found['cfg'] == dict(
            type='CPUDistributedDataParallel', find_unused_parameters=False)


def test_cpu_wrapper_replaces_sync_bn_with_one_info_line(two_processes):
    saved, logs = two_processes
    assert all(found['norm'] == '_BatchNormXd' for found in saved)
    lines = [line for log in logs for line in log.splitlines() if LINE in line]
    assert len(lines) == 1
    assert '- INFO -' in lines[0]


def test_cpu_wrapper_keeps_statistics_per_process(two_processes):
    first, second = (found['mean'] for found in two_processes[0])
    assert (first - second).abs().max() > 1e-4


def test_cpu_wrapper_keeps_norms_frozen(two_processes):
    for found in two_processes[0]:
        assert found['trainable'] == [
            'conv.weight', 'conv.bias', 'norm.weight', 'norm.bias']
        for name in ('frozen.weight', 'frozen.bias'):
            assert torch.equal(found['after'][name], found['before'][name])


def test_cpu_wrapper_copies_weights_of_rank_0(two_processes):
    first, second = (found['before'] for found in two_processes[0])
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_cpu_wrapper_averages_gradients(two_processes):
    first, second = two_processes[0]
    assert set(first['gradients']) == set(first['trainable'])
    for name, gradient in first['gradients'].items():
        assert torch.equal(gradient, second['gradients'][name])
        expected = (first['expected'][0][name] + first['expected'][1][name]) / 2
        torch.testing.assert_close(gradient, expected)


def test_cpu_wrapper_step_gives_equal_weights(two_processes):
    first, second = two_processes[0]
    for name in first['trainable']:
        assert torch.equal(first['after'][name], second['after'][name])
    for name in ('conv.weight', 'norm.weight'):
        step = -0.1 * first['gradients'][name]
        torch.testing.assert_close(
            first['after'][name], first['before'][name] + step)
        assert step.abs().max() > 0


# --- start_processes ---------------------------------------------------------


@pytest.fixture
def joined(monkeypatch):
    """Pretend there is no GPU; list the backends of the groups that are joined."""
    backends = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.distributed, 'init_process_group', backends.append)
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: False)
    launched = [name for names in VARIABLES.values() for name in names]
    with mock.patch.dict(os.environ):
        for name in launched + ['SLURM_LOCALID', 'OMPI_COMM_WORLD_LOCAL_RANK']:
            os.environ.pop(name, None)
        yield backends


def test_start_processes_without_launcher_joins_no_group(joined):
    cfg = Config(dict())
    start_processes(cfg, 'none')
    assert cfg.launcher == 'none'
    assert 'model_wrapper_cfg' not in cfg
    assert joined == []


@pytest.mark.parametrize('launcher', VARIABLES)
def test_start_processes_names_all_missing_variables(joined, launcher):
    names = list(VARIABLES[launcher])
    with pytest.raises(InputError) as caught:
        start_processes(Config(dict()), launcher)
    message = str(caught.value)
    assert '\n' not in message
    assert f'--launcher {launcher} needs {", ".join(names)} in' in message
    assert 'tools/dist_train.sh' in message
    assert joined == []


@pytest.mark.parametrize('launcher, name', [
    (launcher, name) for launcher in VARIABLES for name in VARIABLES[launcher]])
def test_start_processes_names_one_missing_variable(joined, launcher, name):
    os.environ.update(VARIABLES[launcher])
    del os.environ[name]
    with pytest.raises(InputError, match=f'needs {name} in the environment'):
        start_processes(Config(dict()), launcher)


@pytest.mark.parametrize('launcher', VARIABLES)
def test_start_processes_joins_gloo_without_gpu(joined, launcher):
    os.environ.update(VARIABLES[launcher])
    cfg = Config(dict())
    start_processes(cfg, launcher)
    assert joined == ['gloo']
    assert cfg.launcher == launcher
    assert cfg.model_wrapper_cfg.type == 'CPUDistributedDataParallel'


@pytest.mark.parametrize('launcher, host', [('slurm', 'node7'), ('mpi', '127.0.0.1')])
def test_start_processes_translates_variables(joined, launcher, host):
    os.environ.update(VARIABLES[launcher])
    with mock.patch('subprocess.run', side_effect=FileNotFoundError):  # no scontrol
        start_processes(Config(dict()), launcher)
    assert os.environ['RANK'] == '3'
    assert os.environ['WORLD_SIZE'] == '8'
    assert os.environ['LOCAL_RANK'] == '3'
    assert os.environ['MASTER_ADDR'] == host
    assert os.environ['MASTER_PORT'].isdigit()


@pytest.mark.parametrize('launcher, name', [
    ('slurm', 'SLURM_LOCALID'), ('mpi', 'OMPI_COMM_WORLD_LOCAL_RANK')])
def test_start_processes_uses_local_rank(joined, launcher, name):
    os.environ.update(VARIABLES[launcher], **{name: '1'})
    start_processes(Config(dict()), launcher)
    assert (os.environ['RANK'], os.environ['LOCAL_RANK']) == ('3', '1')


def test_start_processes_keeps_wrapper_settings(joined):
    os.environ.update(VARIABLES['pytorch'])
    cfg = Config(dict(model_wrapper_cfg=dict(
        type='MMDistributedDataParallel', find_unused_parameters=True)))
    start_processes(cfg, 'pytorch')
    assert cfg.model_wrapper_cfg == dict(
        type='CPUDistributedDataParallel', find_unused_parameters=True)


def test_start_processes_leaves_gpus_to_mmengine(joined, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    os.environ.update(VARIABLES['pytorch'])
    cfg = Config(dict())
    start_processes(cfg, 'pytorch')
    assert cfg.launcher == 'pytorch'
    assert 'model_wrapper_cfg' not in cfg
    assert joined == []


def test_start_processes_honours_timeout(joined, monkeypatch):
    os.environ.update(VARIABLES['pytorch'])
    found = {}
    monkeypatch.setattr(torch.distributed, 'init_process_group',
                        lambda backend, **options: found.update(options))
    start_processes(Config(dict(env_cfg=dict(dist_cfg=dict(timeout=90)))), 'pytorch')
    assert found['timeout'].total_seconds() == 90


@pytest.mark.parametrize('timeout', ['90', 0, -1, True])
def test_start_processes_rejects_timeout(joined, timeout):
    os.environ.update(VARIABLES['pytorch'])
    cfg = Config(dict(env_cfg=dict(dist_cfg=dict(timeout=timeout))))
    with pytest.raises(InputError, match='env_cfg.dist_cfg.timeout is'):
        start_processes(cfg, 'pytorch')
