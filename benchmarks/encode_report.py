"""Show the rows of a result of op, as a table and as a picture."""
from collections import defaultdict
from pathlib import Path
from typing import List

import harness
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

STYLES = ('-', '--', ':')  # of the types
AXES = dict(count='N, features of a map', codes='K, codewords')


def table(rows: List[dict]) -> str:
    """Return the rows as text: ms of both passes, and memory in multiples of x."""
    names = list(rows[0]['times_ms'])
    head = ['B x D x H x W x K', 'dtype', *(f'{name}, ms' for name in names),
            'products, ms', *(f'memory, {name}' for name in names)]
    cells = []
    for row in rows:
        times = [{key: passes_of[key]['median'] for key in passes_of}
                 for passes_of in (row['times_ms'][name] or {} for name in names)]
        cells.append([
            row['shape'], row['dtype'], *map(both, [*times, row['products_ms']]),
            *(harness.number(row['memory'].get(name)) for name in names)])
    lines = [harness.table(head, cells), 'ms: forward / forward + backward.']
    return '\n'.join(lines + [
        f'{row["shape"]}, {row["dtype"]}: {name} left out, {reason}'
        for row in rows for name, reason in row['skipped'].items()])


def both(values: dict) -> str:
    """Return the numbers of both passes, or a dash."""
    return ' / '.join(map(harness.number, values.values())) or '-'


def plot(rows: List[dict], device: str, path: Path) -> None:
    """Draw forward and backward of the rows of a result, as a PNG file."""
    figure = Figure(figsize=(9.5, 4), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    draw(left, rows, 'count', 'codes')
    draw(right, rows, 'codes', 'count')
    left.set_ylabel('forward + backward, ms')
    figure.legend(*left.get_legend_handles_labels(), loc='outside lower center',
                  frameon=False, ncols=4)
    figure.suptitle(f'Encoding operator, {device}', fontsize=11)
    figure.savefig(path, dpi=100)


def draw(axes, rows: List[dict], along: str, fixed: str) -> None:
    """Draw the longest sweep along N or K, a line for each contender and type."""
    rows = sweep(rows, along, fixed)
    dtypes = list(dict.fromkeys(row['dtype'] for row in rows))
    for dtype, style in zip(dtypes, STYLES):
        points = [row for row in rows if row['dtype'] == dtype]
        for index, name in enumerate([*points[0]['times_ms'], 'products']):
            found = [(row[along], milliseconds(row, name)) for row in points]
            axes.plot(*zip(*found), style, marker='.', color=f'C{index}',
                      label=name + (f', {dtype}' if len(dtypes) > 1 else ''))
    axes.set_title(f'B = {rows[0]["batch"]}, D = {rows[0]["channels"]}, '
                   f'{"NK"[fixed == "codes"]} = {rows[0][fixed]}', fontsize=10)
    axes.set_xlabel(AXES[along])
    axes.set_xscale('log', base=2)
    axes.set_yscale('log')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)


def milliseconds(row: dict, name: str) -> float:
    """Return the median of forward and backward; NaN for none, not drawn."""
    if name == 'products':
        return row['products_ms']['forward_backward']
    times = row['times_ms'][name]
    return times['forward_backward']['median'] if times else float('nan')


def sweep(rows: List[dict], along: str, fixed: str) -> List[dict]:
    """Return the rows that differ along one axis alone; of several such, the most."""
    groups = defaultdict(list)
    for row in rows:
        row = {**row, 'count': row['height'] * row['width']}
        groups[row['batch'], row['channels'], row[fixed]].append(row)
    longest = max(groups.values(), key=lambda g: len({row[along] for row in g}))
    return sorted(longest, key=lambda row: row[along])
