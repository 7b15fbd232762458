"""Command line options that the scripts in tools/ share; only these import it."""
import argparse
import os
import os.path as osp
from types import ModuleType
from typing import List

from mmengine.config import Config, DictAction

from .compat import quiet
from .convert import convert_file
from .engine import load_config, prepare_run
from .errors import one_line_errors

__all__ = ['add_common_arguments', 'load_run_config', 'read_run_config',
           'run_converter']


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that train.py and test.py have in MMSegmentation too."""
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


def read_run_config(args: argparse.Namespace) -> Config:
    """Read the config that the common arguments name; look at no data.

    Args:
        args: values of :func:`add_common_arguments`.

    Raises:
        InputError: when it cannot be read.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options, loader=None)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or osp.join(
        'work_dirs', osp.splitext(osp.basename(args.config))[0])
    return cfg


def load_run_config(args: argparse.Namespace, loaders: List[str]) -> Config:
    """Read the config that the common arguments name, and prepare a run of it.

    Args:
        args: values of :func:`add_common_arguments`.
        loaders: keys of the data loaders that will be used.

    Raises:
        InputError: see :func:`prepare_run`.
    """
    cfg = read_run_config(args)
    prepare_run(cfg, loaders, args.launcher)
    return cfg


def run_converter(converter: ModuleType, description: str) -> None:
    """Run a tool of tools/convert: SRC DST --config CFG.

    Args:
        converter: a module with ``SOURCE`` and ``convert(path, cfg)``.
        description: text of --help.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='SRC', help='checkpoint to convert')
    parser.add_argument('target', metavar='DST', help='file to write')
    parser.add_argument(
        '--config', required=True, metavar='CFG',
        help='config that will load the result; a file in any folder')
    args = parser.parse_args()
    with one_line_errors(), quiet():
        print(convert_file(converter, args.source, args.target, args.config))
