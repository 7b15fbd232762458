"""The command line of tools/convert: SRC DST --config CFG."""
import argparse
import os
from collections import Counter
from types import ModuleType

from mmengine.registry import init_default_scope

from ..engine import cli
from ..errors import InputError
from .checkpoint import Conversion, save

__all__ = ['main']


def main(converter: ModuleType, description: str) -> None:
    """Run a converter, a module with ``SOURCE`` and ``convert(path, cfg)``."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='SRC', help='checkpoint to convert')
    parser.add_argument('target', metavar='DST', help='file to write')
    parser.add_argument(
        '--config', required=True, metavar='CFG',
        help='the experiment that is to take it; a file anywhere')
    args = parser.parse_args()
    with cli.one_line_errors():
        print(run(converter, args.source, args.target, args.config))


def run(converter: ModuleType, source: str, target: str, config: str) -> str:
    """Convert ``source`` to ``target``; returns what to tell the user.

    Raises:
        InputError: naming the file or key at fault.
    """
    if os.path.abspath(source) == os.path.abspath(target):
        raise InputError(f'DST {target} is SRC; give another file')
    cfg = cli.load_config(config)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    found = converter.convert(source, cfg)
    if found is None:
        return (f'{source} fits {config} as it is: give it to the tools, or to '
                'load_from; nothing was written')
    save(found, target, cfg, converter.SOURCE)
    return report(found, target)


def report(found: Conversion, target: str) -> str:
    """What was written, and what was left out by the module it belongs to."""
    lines = [f'{target}: {len(found.state)} entries for {found.part}']
    groups = Counter(module_of(key) for key in found.left_out)
    lines += [f'left out, the config has no use for it: {group} '
              f'({count} entries)' for group, count in groups.items()]
    return '\n'.join(lines)


def module_of(key: str) -> str:
    """The outermost module of an entry, inside of a backbone the next."""
    parts = key.split('.')
    for prefix in (['cp', 'backbone'], ['pretrained'], ['auxiliary_head']):
        if parts[:len(prefix)] == prefix:
            return '.'.join(parts[:len(prefix) + 1])
    return parts[0]
