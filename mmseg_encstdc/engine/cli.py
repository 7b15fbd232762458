"""What the command line tools share."""
import argparse
import os
import os.path as osp
import sys
import tempfile
import warnings
from contextlib import contextmanager
from typing import Iterator, List, Optional

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import get_dist_info
from mmengine.runner import Runner
from torch import nn

from ..errors import InputError
from .checks import bind_classes, check_config, check_data
from .distributed import start_processes

__all__ = [
    'CONFIG_ERRORS', 'add_common_arguments', 'blamed_on', 'build_runner',
    'check_fits', 'check_writable', 'load_config', 'one_line_errors', 'prepare',
    'quiet', 'read_checkpoint', 'use_mode'
]

# Warnings that ask nothing of the user: of sizes that align_corners=True, which
# is meant, does not align; of mmseg's own calls; of pictures nobody asked for.
NOISE = ('When align_corners=True', '``build_loss`` would be deprecated',
         'The draw is False')

# What a wrong value in a config raises, here or in a library below.
CONFIG_ERRORS = (AssertionError, AttributeError, ImportError, IndexError,
                 KeyError, OSError, SyntaxError, TypeError, ValueError)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of train.py and test.py, as MMSegmentation's have them."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints; default: '
        'work_dirs/NAME of the config')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override config values, e.g. train_dataloader.batch_size=4 '
        'or model.decode_head.num_codes=64')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none', help='what started the processes; default: none')
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0,
        help=argparse.SUPPRESS)  # passed by older launchers


def load_config(path: str, options: Optional[dict] = None) -> Config:
    """A config file with overrides merged in.

    Raises:
        InputError: when there is no such file, or it is no experiment.
    """
    if not osp.isfile(path):
        raise InputError(f'config {path} does not exist; those of this '
                         'project are in configs/')
    with blamed_on(f'config {path}', CONFIG_ERRORS):
        config = Config.fromfile(path)
    with blamed_on('--cfg-options', CONFIG_ERRORS):
        config.merge_from_dict(options or {})
    for key in ('model', 'test_dataloader'):
        if not isinstance(config.get(key), dict):
            raise InputError(f'config {path} has no {key}; give a whole '
                             'experiment, not one of its bases')
    return config


def build_runner(cfg: Config) -> Runner:
    """MMEngine's runner of a config.

    Raises:
        InputError: when something in the config cannot be built.
    """
    with blamed_on(f'config of {cfg.work_dir}', CONFIG_ERRORS):
        return Runner.from_cfg(cfg)


def read_checkpoint(path: str) -> dict:
    """A checkpoint of MMEngine.

    Raises:
        InputError: when the file does not exist, is damaged or foreign.
    """
    if not osp.isfile(path):
        raise InputError(f'checkpoint {path} does not exist; training writes '
                         'it to the work dir')
    with blamed_on(f'checkpoint {path} cannot be read: it is truncated, or no '
                   'checkpoint', (Exception, )):
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    if not isinstance(checkpoint, dict) or not all(
            isinstance(checkpoint.get(k), dict) for k in ('state_dict', 'meta')):
        raise InputError(f'{path} is no checkpoint of MMEngine: it needs the '
                         'dictionaries state_dict and meta')
    for name, value in checkpoint['state_dict'].items():
        if not (isinstance(name, str) and isinstance(value, torch.Tensor)
                and value.layout == torch.strided and not value.is_quantized
                and value.device.type == 'cpu'):
            raise InputError(f'checkpoint {path} has {name!r} in its state_dict, '
                             'which is no plain tensor')
    return checkpoint


def check_fits(model: nn.Module, path: str,
               state: Optional[dict] = None) -> None:
    """Compare a model with a checkpoint; MMEngine would only warn.

    Auxiliary heads may differ: evaluation does not run them.

    Args:
        model (nn.Module): to compare.
        path (str): of the checkpoint.
        state (dict, optional): its weights, where they are read already.

    Raises:
        InputError: naming the first weight that is missing, of another shape,
            or, in a backbone, left over: a deeper one holds a shallower.
    """
    while hasattr(model, 'module'):  # test-time augmentation, distribution
        model = model.module
    if state is None:
        state = read_checkpoint(path)['state_dict']
    wanted = model.state_dict()
    wrong = [key for key in state
             if key.startswith('backbone.') and key not in wanted]
    wrong += [
        key for key, value in wanted.items()
        if not key.startswith('auxiliary_head')
        and not key.endswith('num_batches_tracked') and
        (key not in state or state[key].shape != value.shape)
    ]
    if wrong:
        raise InputError(
            f'checkpoint {path} does not fit the config: {len(wrong)} weights '
            'are missing, left over or of another shape, the first is '
            f'{wrong[0]}; give the config that it was trained with')


def check_writable(folder: str) -> None:
    """Make a folder for output, or raise InputError."""
    with blamed_on(f'folder {folder} cannot be written', (OSError, )):
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def blamed_on(what: str, kinds: tuple) -> Iterator[None]:
    """Turn errors of other libraries into one line about the input."""
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        line = (str(error).strip() or repr(error)).splitlines()[-1]
        raise InputError(f'{what}: {type(error).__name__}: {line}') from error


def prepare(args: argparse.Namespace, loaders: List[str],
            training: bool = False) -> Config:
    """The config of a run, checked against itself and against its data."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or osp.join(
        'work_dirs', osp.splitext(osp.basename(args.config))[0])
    for name in loaders:
        if cfg.get(name) and cfg[name].get('num_workers') == 0:
            cfg[name].persistent_workers = False  # as PyTorch insists
    start_processes(cfg, args.launcher)
    rank, world_size = get_dist_info()
    loaders = [name for name in loaders if cfg.get(name) is not None]
    check_writable(cfg.work_dir)
    check_config(cfg, loaders, world_size, training)
    bind_classes(cfg, loaders)
    if rank == 0:
        check_data(cfg, loaders, world_size)
    return cfg


def use_mode(cfg: Config, mode: str) -> None:
    """Evaluate in one of the config's ``test_modes``.

    Raises:
        InputError: naming the modes there are.
    """
    modes = cfg.get('test_modes', {})
    if mode not in modes:
        raise InputError(f'--mode {mode} is not in test_modes of the config, '
                         f'which has {", ".join(sorted(modes)) or "none"}')
    chosen = modes[mode]
    scale = cfg.model.test_cfg.get('scale')
    cfg.model.test_cfg = chosen['test_cfg']
    if scale is not None and chosen['test_cfg']['mode'] != 'chip':
        cfg.model.test_cfg.scale = scale
    if 'pipeline' in chosen:
        cfg.test_dataloader.dataset.pipeline = chosen['pipeline']


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that ask nothing of the user."""
    with warnings.catch_warnings():
        for message in NOISE:
            warnings.filterwarnings('ignore', message)
        yield


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line for errors that the user can mend.

    An error from a data worker arrives as the worker's whole traceback; its
    last line is the message. Warnings that ask nothing of the user are left
    out. MMSEG_ENCSTDC_TRACEBACK=1 shows where an error came from.
    """
    for message in NOISE:
        warnings.filterwarnings('ignore', message)
    try:
        yield
    except InputError as error:
        if os.environ.get('MMSEG_ENCSTDC_TRACEBACK') == '1':
            raise
        line = str(error).strip().splitlines()[-1]
        sys.exit('error: ' + line.split('InputError: ', 1)[-1])
    except AssertionError as error:  # mmcv's loader, which names the file
        if 'failed to load image' not in str(error):
            raise
        line = str(error).strip().splitlines()[-1]
        sys.exit('error: ' + line.split('AssertionError: ', 1)[-1] +
                 '; restore the file or remove it')
