"""What the command line tools share."""
import argparse
import os
import os.path as osp
import sys
import warnings
from contextlib import contextmanager
from typing import Iterator, List, Optional

from mmengine.config import Config, DictAction
from mmengine.dist import get_dist_info

from ..errors import InputError
from .checks import bind_classes, check_config, check_data
from .distributed import start_processes

__all__ = [
    'add_common_arguments', 'check_checkpoint', 'load_config',
    'one_line_errors', 'prepare', 'use_mode'
]

# Warnings that ask nothing of the user: of sizes that align_corners=True, which
# is meant, does not align; of mmseg's own calls; of pictures nobody asked for.
NOISE = ('When align_corners=True', '``build_loss`` would be deprecated',
         'The draw is False')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of train.py and test.py, as MMSegmentation's have them."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints; default: '
        'work_dirs/NAME of the config')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override config values, e.g. train_dataloader.batch_size=4 '
        'or model.test_cfg.scales="[1,1.5]"')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none', help='what started the processes; default: none')
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0,
        help=argparse.SUPPRESS)  # passed by older launchers


def load_config(path: str, options: Optional[dict] = None) -> Config:
    """A config file with overrides merged in.

    Raises:
        InputError: when there is no such file.
    """
    if not osp.isfile(path):
        raise InputError(f'config {path} does not exist; those of this '
                         'project are in configs/')
    config = Config.fromfile(path)
    if options:
        config.merge_from_dict(options)
    return config


def check_checkpoint(path: str) -> None:
    """Raise InputError unless the file exists."""
    if not osp.isfile(path):
        raise InputError(f'checkpoint {path} does not exist; training writes '
                         'it to the work dir')


def prepare(args: argparse.Namespace, loaders: List[str],
            training: bool = False) -> Config:
    """The config of a run, checked against itself and against its data."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or osp.join(
        'work_dirs', osp.splitext(osp.basename(args.config))[0])
    start_processes(cfg, args.launcher)
    rank, world_size = get_dist_info()
    check_config(cfg, loaders, world_size, training)
    bind_classes(cfg, loaders)
    if rank == 0:
        check_data(cfg, loaders)
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
def one_line_errors() -> Iterator[None]:
    """End the program with one line for errors that the user can mend.

    An error from a data worker arrives as the worker's whole traceback; its
    last line is the message. Warnings that ask nothing of the user are left
    out.
    """
    for message in NOISE:
        warnings.filterwarnings('ignore', message)
    try:
        yield
    except InputError as error:
        line = str(error).strip().splitlines()[-1]
        sys.exit('error: ' + line.split('InputError: ', 1)[-1])
    except AssertionError as error:  # mmcv's loader, which names the file
        if 'failed to load image' not in str(error):
            raise
        line = str(error).strip().splitlines()[-1]
        sys.exit('error: ' + line.split('AssertionError: ', 1)[-1] +
                 '; restore the file or remove it')
