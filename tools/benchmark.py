#!/usr/bin/env python
"""Measure this project beside MMSegmentation: tools/benchmark.py COMMAND

Writes benchmarks/results/NAME.json, which names the device, the versions, the
commit and the command; op also draws it, NAME.png. From an installed package
they go to work_dirs/benchmark.
"""
import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]
try:
    import record
    from encode_op import command as op
    from train_step import command as train
    from train_step import losses_command as losses

    from mmseg_encstdc.compat import quiet
    from mmseg_encstdc.errors import one_line_errors
except ImportError as error:
    sys.exit(f'error: {error}')
except KeyboardInterrupt:
    sys.exit(130)
if ROOT.name == '.mim':  # installed: results are for whoever measures
    record.RESULTS = Path('work_dirs/benchmark')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    for name, command, what in (
            ('op', op, 'time and memory of the Encoding operator'),
            ('train', train, 'time and memory of a step of training'),
            ('losses', losses, 'time and memory of the loss path alone')):
        command.add_arguments(commands.add_parser(
            name, help=what, description=command.__doc__))
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        with one_line_errors(), quiet():
            args.run(args)
    except KeyboardInterrupt as stopped:
        print(str(stopped) or 'stopped', file=sys.stderr)
        sys.exit(130)


if __name__ == '__main__':
    main()
