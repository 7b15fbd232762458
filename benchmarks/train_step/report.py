"""The figures as tables."""
from typing import List, Optional

from prettytable import PrettyTable

__all__ = ['loss_table', 'train_table']

TRAIN_LEGEND = ('Memory: peak of a step over weights, what the optimizer keeps '
                'and the batch;\non a GPU also all that was allocated.')
LOSS_LEGEND = 'Forward + backward to the logits. Memory: peak over the inputs.'


def train_table(result: dict) -> str:
    """Fixed-width text of a result of train."""
    rows = shown(result, ['ours', 'stock'])
    for row, name in zip(rows, ['ours', 'stock']):
        row.insert(1, result['parameters'].get(name) or '-')
    ratio = result['stock_over_ours']
    rows.append(['stock / ours', '', number(ratio['time']), '', '',
                 number(ratio['memory']), number(ratio.get('total'))])
    head = ['contender', 'parameters', 'median, ms', 'quartiles', 'least',
            'memory, MiB', 'in all, MiB']
    return '\n'.join([f'{result["config"]}, {result["shape"]}', draw(head, rows),
                      TRAIN_LEGEND, *fallen(result)])


def loss_table(result: dict) -> str:
    """Fixed-width text of one case of a result of losses."""
    rows = [row[:-1] for row in shown(result, list(result['times_ms']))]
    for name, ratio in result['ratios'].items():
        rows.append([name.replace('_over_', ' / '), number(ratio['time']), '',
                     '', number(ratio['memory'])])
    head = ['contender', 'median, ms', 'quartiles', 'least', 'memory, MiB']
    title = (f'{result["case"]}: {result["heads"]} heads, {result["classes"]} '
             f'classes, labels {result["shape"]}')
    return '\n'.join([title, draw(head, rows), LOSS_LEGEND, *fallen(result)])


def shown(result: dict, names: List[str]) -> List[list]:
    """Name, median, quartiles, least, memory over inputs and in all."""
    rows = []
    for name in names:
        times = result['times_ms'].get(name) or {}
        memory = result['memory_mib'].get(name) or {}
        quartiles = [number(times.get(f'{each}_quartile'))
                     for each in ('lower', 'upper')]
        rows.append([name, number(times.get('median')), ' - '.join(quartiles),
                     number(times.get('min')), number(memory.get('over')),
                     number(memory.get('total'))])
    return rows


def draw(head: List[str], rows: List[list]) -> str:
    table = PrettyTable(head)
    table.align = 'r'
    table.add_rows(rows)
    return str(table)


def fallen(result: dict) -> List[str]:
    return [f'{name}: {why}' for name, why in result['fallen'].items()]


def number(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:.4g}'
