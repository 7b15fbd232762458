"""The figures as a table and as a picture."""
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Optional

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from prettytable import PrettyTable

from .contenders import PASSES

__all__ = ['plot', 'table']

LEGEND = ('Milliseconds and ratios: forward / forward + backward. Memory: '
          'peak of forward +\nbackward over the inputs, in multiples of x.')
COLOURS = dict(stock='tab:red', torch='tab:blue', triton='tab:orange',
               cuda='tab:green', bound='tab:gray')
LABELS = dict(stock='MMSegmentation', torch='ours, torch', triton='ours, Triton',
              cuda='ours, cuda',
              floor='memory floor', products='matrix products alone')
STYLES = ('-', '--', ':')  # of the types
AXES = dict(count='N, features of a map', codes='K, codewords')


def table(rows: List[dict]) -> str:
    """Fixed-width text of the rows of a result."""
    ours = list(rows[0]['ratios'])
    limit = bound(rows[0])
    shown = PrettyTable(
        ['B x D x H x W x K', 'dtype'] +
        [f'{name}, ms' for name in ['stock', *ours]] +
        [f'stock/{name}' for name in ours] +
        [f'{name}/{limit}' for name in ours] +
        [f'memory, {name}' for name in ['stock', *ours]])
    shown.align = 'r'
    for row in rows:
        shown.add_row(
            [row['shape'], row['dtype']] +
            [pair(row['times_ms'][name]) for name in ['stock', *ours]] +
            [pair(row['ratios'][name][key]) for key in
             ('stock_over_ours', f'ours_over_{limit}') for name in ours] +
            [number(row['memory'][name]) for name in ['stock', *ours]])
    skipped = [f'{row["shape"]}, {row["dtype"]}: {name} left out, {reason}'
               for row in rows for name, reason in row['skipped'].items()]
    return '\n'.join([str(shown), LEGEND, *skipped])


def bound(row: dict) -> str:
    """What limits the operator: ``products`` on a CPU, ``floor`` on a GPU."""
    return 'products' if 'products_ms' in row else 'floor'


def number(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:.3g}'


def pair(values: Optional[Dict[str, float]]) -> str:
    """Both passes."""
    return '-' if values is None else ' / '.join(
        number(values[key]) for key in PASSES)


def plot(record: dict, path: Path) -> None:
    """Draw forward + backward against N and against K, as a PNG file."""
    figure = Figure(figsize=(9.5, 4), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    draw(left, record['shapes'], 'count', 'codes')
    draw(right, record['shapes'], 'codes', 'count')
    left.set_ylabel('forward + backward, ms')
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', frameon=False,
                  ncols=4)
    figure.suptitle(f'Encoding operator, {record["device"]}', fontsize=11)
    figure.savefig(path, dpi=100)


def draw(axes, rows: List[dict], along: str, fixed: str) -> None:
    """One panel: the longest sweep along N or K, a line for each contender."""
    rows = sweep(rows, along, fixed)
    dtypes = list(dict.fromkeys(row['dtype'] for row in rows))
    limit = bound(rows[0])
    for dtype, style in zip(dtypes, STYLES):
        points = [row for row in rows if row['dtype'] == dtype]
        of = f', {dtype}' if len(dtypes) > 1 else ''
        for name in [*points[0]['memory'], limit]:
            times = [row[f'{limit}_ms'] if name == limit else
                     row['times_ms'][name] for row in points]
            xy = [(row[along], time[PASSES[1]])
                  for row, time in zip(points, times) if time]
            axes.plot(*zip(*xy) if xy else ([], []), style, marker='.',
                      label=LABELS[name] + of,
                      color=COLOURS['bound' if name == limit else name])
    first = rows[0]
    other = f'N = {first["count"]}' if fixed == 'count' else (
        f'K = {first["codes"]}')
    axes.set_title(f'B = {first["batch"]}, D = {first["channels"]}, {other}',
                   fontsize=10)
    axes.set_xlabel(AXES[along])
    axes.set_xscale('log', base=2)
    axes.set_yscale('log')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)


def sweep(rows: List[dict], along: str, fixed: str) -> List[dict]:
    """The rows that differ along one axis alone; of several such, the most."""
    groups = defaultdict(list)
    for row in rows:
        row = {**row, 'count': row['height'] * row['width']}
        groups[row['batch'], row['channels'], row[fixed]].append(row)
    longest = max(groups.values(), key=lambda g: len({r[along] for r in g}))
    return sorted(longest, key=lambda row: row[along])
