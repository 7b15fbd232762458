"""Time and memory of the loss path alone, from the logits of the heads to their
gradients: plain cross entropy, MMSegmentation's path, and ours; on a GPU ours with
each backend."""
import argparse

import record
import torch
from common import arguments
from common.clocks import rounded

from . import report
from .contest import contest, quotient
from .loss_paths import CASES, STRIDE, contenders
from .shapes import Shape

__all__ = ['add_arguments', 'run']

QUICK_ROUNDS = 3
ROUNDS = dict(cpu=7, cuda=30)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand losses."""
    parser.set_defaults(run=run)
    parser.add_argument(
        '--case', choices=[*CASES], help='; '.join(
            f'{name}: {case.heads} heads of {case.config} on labels of '
            f'{case.shape}' for name, case in CASES.items()) + '; default: all')
    parser.add_argument(
        '--quick', action='store_true',
        help=f'small labels, and {QUICK_ROUNDS} rounds')
    arguments.add_arguments(
        parser, ROUNDS, 'losses_cpu or losses_GPU, with the case and _quick '
        'where asked for', 'the memory, which takes a process for each '
        'contender')


def run(args: argparse.Namespace) -> None:
    """Run the subcommand losses."""
    device = arguments.check(args)
    arguments.use(device, args)
    path = record.RESULTS / f'{args.name or default_name(args, device)}.json'
    record.check_writable(path)
    results = []
    for case in [args.case] if args.case else CASES:
        shape = CASES[case].quick if args.quick else CASES[case].shape
        print(f'{case}, {shape} ...', flush=True)
        results.append(measure(args, case, shape, device))
        record.write(path.stem, dict(cases=results), kind=device.type)
        print(report.loss_table(results[-1]), flush=True)
    print(f'written to {path}')


def default_name(args: argparse.Namespace, device: torch.device) -> str:
    """losses_cpu or losses_GPU, with what is less than all."""
    return '_'.join(['losses', *arguments.device_words(device),
                     *([args.case] if args.case else []),
                     *(['quick'] if args.quick else [])])


def measure(args: argparse.Namespace, case: str, shape: Shape,
            device: torch.device) -> dict:
    """The result of one case."""
    job = dict(kind='losses', case=case, shape=str(shape), device=str(device),
               threads=torch.get_num_threads())
    rounds = args.rounds or (QUICK_ROUNDS if args.quick else
                             ROUNDS[device.type])
    names = contenders(device)
    figures = contest({name: dict(job, contender=name) for name in names},
                      device.type, rounds, not args.no_memory,
                      f'--case {case} at {shape}')
    facts = next(iter(figures.pop('facts').values()))  # the same for all
    pairs = [pair for ours in names[2:]
             for pair in (('stock', ours), (ours, 'plain'))]
    ratios = {f'{above}_over_{below}': quotient(figures, above, below)
              for above, below in (*pairs, ('stock', 'plain'))}
    return rounded(dict(
        case=case, config=f'configs/{CASES[case].config}',
        heads=CASES[case].heads, classes=facts['classes'], shape=str(shape),
        **shape._asdict(), stride=STRIDE, inputs_mib=facts['inputs'] / 2**20,
        rounds=rounds, ratios=ratios, **figures))
