"""Read the text of a config that holds plain values, without executing it."""
import ast
from typing import Any, Dict, Iterator, Tuple

__all__ = ['config_values']


def config_values(text: str) -> Dict[str, Any]:
    """Return the values of a config that MMEngine wrote as Python text.

    Raises:
        ValueError: when the text has more than names and plain values.
    """
    try:
        return {name: _value(node) for name, node in _assignments(text)}
    except (AttributeError, MemoryError, RecursionError, SyntaxError,
            TypeError) as error:
        raise ValueError(str(error)) from error


def _assignments(text: str) -> Iterator[Tuple[str, ast.expr]]:
    """Yield name and expression of each statement, ``name = expression``."""
    for line in ast.parse(text).body:
        if not (isinstance(line, ast.Assign) and len(line.targets) == 1
                and isinstance(line.targets[0], ast.Name)):
            raise ValueError(f'line {line.lineno}')
        yield line.targets[0].id, line.value


def _value(node: ast.expr) -> Any:
    """Evaluate a literal, in which ``dict(...)``, inf and nan are accepted too."""
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict':
            raise ValueError(f'line {node.lineno}')
        result = {}
        for part in node.args:
            result.update(_value(part))
        for keyword in node.keywords:
            value = _value(keyword.value)
            result.update(value if keyword.arg is None else {keyword.arg: value})
        return result
    if isinstance(node, ast.Dict):
        return {_value(k): _value(v) for k, v in zip(node.keys, node.values)}
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Set):
        return {_value(item) for item in node.elts}
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):
        return float(node.id)
    return ast.literal_eval(node)
