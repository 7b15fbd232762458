"""Start the processes of a run, and check its config, data and work dir."""
import gc
import os
import re
import signal
import subprocess
import tempfile
from datetime import timedelta
from typing import List, Optional

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import get_dist_info
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from torch import nn

from .. import compat
from ..compat.hooks import drop_removed_hooks, give_rules
from ..compat.trial import note_failures
from ..errors import LAUNCHER, InputError, as_input_error
from .bad_images import allow_bad_images
from .checks import check_config, check_data, check_layout
from .config_errors import naming
from .configs import bind_classes
from .heartbeat import stop_watching, watch_ranks
from .processes import end_with_parent

__all__ = [
    'CPUDistributedDataParallel', 'check_writable', 'prepare_run',
    'start_processes', 'stop_processes'
]


def prepare_run(cfg: Config, loaders: List[str], launcher: str = 'none',
                training: bool = False, keep_folder: bool = True) -> None:
    """Start the processes of a run and check its config and its data.

    Args:
        cfg: a whole experiment with its ``work_dir``, changed in place.
        loaders: keys of the data loaders that will be used.
        launcher: see :func:`start_processes`.
        training: also check what only training needs.
        keep_folder: leave the work dir; otherwise, remove it if it is new.

    Raises:
        InputError: naming the file or key at fault and what is accepted.
    """
    check_layout(cfg, [name.partition('_')[0] for name in loaders])
    drop_removed_hooks(cfg)
    give_rules(cfg)
    loaders = [name for name in loaders if cfg.get(name) is not None]
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        # PyTorch's DataLoader rejects persistent workers at num_workers=0.
        if isinstance(cfg.get(name), dict) and cfg[name].get('num_workers', 0) == 0:
            cfg[name].persistent_workers = False
    if training:
        allow_bad_images(cfg)
    start_processes(cfg, launcher)
    rank, world_size = get_dist_info()
    if keep_folder or rank == 0:
        check_writable(cfg.work_dir, keep_folder)
    with note_failures(), naming(cfg, 'config'):
        check_config(cfg, loaders, world_size, training)
        bind_classes(cfg, loaders)
        if rank == 0:
            check_data(cfg, loaders, world_size)


def check_writable(folder: str, keep: bool = True) -> None:
    """Make a folder for output, or raise InputError if it cannot be written.

    Args:
        folder: to make.
        keep: leave it; otherwise, remove it and its parents if they are new.
    """
    made, parent = [], os.path.abspath(folder)
    while not os.path.exists(parent):
        made.append(parent)
        parent = os.path.dirname(parent)
    with as_input_error(f'folder {folder} cannot be written', (OSError, )):
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for new in made if not keep else ():
            os.rmdir(new)


class CPUDistributedDataParallel(MMDistributedDataParallel):
    """Wrap a model for several processes without a GPU.

    SyncBN exists on GPUs only, so it is replaced by batch norm over each
    process's own images, with one INFO line.

    Args:
        module: model to wrap.
        device_ids: ignored; MMEngine passes it.
        **kwargs: arguments of MMDistributedDataParallel.
    """

    def __init__(self, module: nn.Module, device_ids: Optional[List[int]] = None,
                 **kwargs):
        if any(isinstance(m, nn.SyncBatchNorm) for m in module.modules()):
            compat.info('SyncBN works on GPUs only: on CPU each process uses '
                        'BN over its own images')
            module = revert_sync_batchnorm(module)
        kwargs.setdefault('broadcast_buffers', False)
        super().__init__(module=module, device_ids=None, **kwargs)


def start_processes(cfg: Config, launcher: str) -> None:
    """Prepare ``cfg`` for a launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    MMEngine starts the processes where there are GPUs. Without GPUs, this joins
    a gloo group and chooses :class:`CPUDistributedDataParallel`.

    Raises:
        InputError: naming the launcher's environment variables that are not set.
    """
    cfg.launcher = launcher
    if launcher == 'none':
        return
    required = {
        'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR',
                    'MASTER_PORT'),
        'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
        'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
    }[launcher]
    missing = [name for name in required if name not in os.environ]
    if missing:
        raise InputError(
            f'--launcher {launcher} needs {", ".join(missing)} in the '
            'environment; start it through tools/dist_train.sh or '
            'tools/slurm_train.sh')
    options = _group_options(cfg)
    if LAUNCHER in os.environ:
        end_with_parent(signal.SIGTERM, int(os.environ[LAUNCHER].partition(':')[0]))
    elif 'TORCHELASTIC_RUN_ID' in os.environ:  # of torch.distributed.run
        end_with_parent(signal.SIGTERM, os.getppid())
    if torch.cuda.is_available():
        return
    if launcher == 'slurm':
        _export(os.environ['SLURM_PROCID'], os.environ['SLURM_NTASKS'],
                os.environ.get('SLURM_LOCALID', os.environ['SLURM_PROCID']))
        os.environ.setdefault('MASTER_ADDR',
                              _first_host(os.environ['SLURM_NODELIST']))
    elif launcher == 'mpi':
        rank = os.environ['OMPI_COMM_WORLD_RANK']
        _export(rank, os.environ['OMPI_COMM_WORLD_SIZE'],
                os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', rank))
        os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    if not dist.is_initialized():
        with as_input_error(
                f'--launcher {launcher} cannot join at MASTER_ADDR '
                f'{os.environ.get("MASTER_ADDR")}, MASTER_PORT '
                f'{os.environ.get("MASTER_PORT")}; set PORT of tools/dist_train.sh (or '
                'MASTER_PORT) to a free one', (RuntimeError, ValueError, OSError)):
            dist.init_process_group('gloo', **options)
        watch_ranks()
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    wrapper['type'] = 'CPUDistributedDataParallel'
    cfg.model_wrapper_cfg = wrapper


def stop_processes() -> None:
    """Wait for all processes, then destroy their group, if there is one.

    A gloo process aborts when its peer ends first, or when a model in a reference
    cycle still holds the group.
    """
    if dist.is_available() and dist.is_initialized():
        stop_watching()
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


def _group_options(cfg: Config) -> dict:
    """Return the ``timeout`` of env_cfg.dist_cfg, in seconds, for PyTorch.

    Raises:
        InputError: unless it is a number above 0.
    """
    seconds = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
    if seconds is None:
        return {}
    if isinstance(seconds, bool) or not isinstance(
            seconds, (int, float)) or seconds <= 0:
        raise InputError(f'env_cfg.dist_cfg.timeout is {seconds!r}; give the seconds '
                         'that a process may wait for the others')
    return dict(timeout=timedelta(seconds=seconds))


def _export(rank: str, world_size: str, local_rank: str) -> None:
    """Set the environment variables by which PyTorch finds its rank."""
    os.environ.update(
        RANK=rank, WORLD_SIZE=world_size, LOCAL_RANK=local_rank)
    os.environ.setdefault('MASTER_PORT', '29500')


def _first_host(node_list: str) -> str:
    """Return the first host of a Slurm node list, by scontrol if it is there."""
    try:
        hosts = subprocess.run(['scontrol', 'show', 'hostname', node_list],
                               capture_output=True, text=True, check=True)
        return hosts.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return re.sub(r'\[(\w+).*', r'\1', node_list.split(',')[0])
