#!/usr/bin/env python
"""Measure this project beside MMSegmentation: tools/benchmark.py COMMAND

Writes benchmarks/results/NAME.json, which names the device, the versions, the
commit and the command; op also draws it, NAME.png. From an installed package
they go to work_dirs/benchmark.
"""
import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]
try:
    import encode_op
    import harness
    import losses
    import options
    import record
    import train_step

    from mmseg_encstdc.compat import quiet
    from mmseg_encstdc.errors import InputError
except ImportError as error:
    sys.exit(f'error: {error}')
except KeyboardInterrupt:
    sys.exit(130)
if ROOT.name == '.mim':  # installed: results are for whoever measures
    record.RESULTS = Path('work_dirs/benchmark')


def make_parser() -> argparse.ArgumentParser:
    parser = options.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    for name, command in (('op', encode_op), ('train', train_step), ('losses', losses)):
        command.add_arguments(commands.add_parser(
            name, help=command.__doc__.splitlines()[0], description=command.__doc__))
    return parser


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()
    try:
        options.use(args.device, args.threads)
        with quiet(), harness.memory_limit(args.device):
            args.run(args)
    except InputError as error:
        if os.environ.get('MMSEG_ENCSTDC_TRACEBACK') == '1':
            raise
        parser.error(str(error).strip().splitlines()[-1])
    except KeyboardInterrupt as stopped:
        print(str(stopped) or 'stopped', file=sys.stderr)
        sys.exit(130)


if __name__ == '__main__':
    main()
