"""The config that training wrote into a checkpoint, read without running it.

MMEngine keeps it as Python text. Running the text, or letting its ``type``
values name any function there is, would give a file that one only wanted the
weights of the run of the machine; so the text may hold plain values alone, and
types must be names that are registered already.
"""
import ast
import sys
from typing import Any, Iterator

import mmengine.registry
import mmseg.registry
from mmengine.config import Config

from ..errors import InputError

__all__ = ['embedded_config']

SCOPES = ('mmseg', 'mmengine')
PICKLES = ('.pkl', '.pickle', '.npy', '.npz')
REMEDY = 'give the config that it was trained with as config='


def embedded_config(checkpoint: dict, path: str) -> Config:
    """The config in the meta of a checkpoint.

    Args:
        checkpoint (dict): what ``read_checkpoint`` gives.
        path (str): its file, for the messages.

    Raises:
        InputError: when there is none, when it is more than plain values, when
            it needs a module that is not imported, or names a type by its
            place in a module.
    """
    text = checkpoint['meta'].get('cfg')
    if not isinstance(text, str):
        raise InputError(f'checkpoint {path} holds no config; {REMEDY}')
    try:
        values = {name: _value(node) for name, node in _assignments(text)}
    except (AttributeError, MemoryError, RecursionError, SyntaxError, TypeError,
            ValueError) as error:
        raise InputError(f'the config in checkpoint {path} is more than plain '
                         f'values ({error}); {REMEDY}') from error
    _check_imports(values.get('custom_imports') or {}, path)
    known = _registered()
    for key in ('model', 'test_dataloader'):
        if not isinstance(values.get(key), dict):
            raise InputError(
                f'the config in checkpoint {path} has no {key}; {REMEDY}')
        unknown = sorted(set(_types(values[key])) - known)
        if unknown:
            raise InputError(
                f'the config in checkpoint {path} has the type {unknown[0]}, '
                f'which is not registered; {REMEDY}')
    _check_scopes_and_files(values, path)
    try:
        return Config(values)
    except (KeyError, TypeError, ValueError) as error:  # a reserved name
        raise InputError(f'the config in checkpoint {path} cannot be read '
                         f'({error}); {REMEDY}') from error


def _assignments(text: str) -> Iterator[tuple]:
    """(name, expression) of every line ``name = expression``."""
    for line in ast.parse(text).body:
        if not (isinstance(line, ast.Assign) and len(line.targets) == 1
                and isinstance(line.targets[0], ast.Name)):
            raise ValueError(f'line {line.lineno}')
        yield line.targets[0].id, line.value


def _value(node: ast.expr) -> Any:
    """A literal, in which ``dict(...)`` may stand for {...}."""
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict':
            raise ValueError(f'line {node.lineno}')
        result = {}
        for part in node.args:
            result.update(_value(part))
        for keyword in node.keywords:
            inner = _value(keyword.value)
            result.update(inner if keyword.arg is None else
                          {keyword.arg: inner})
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


def _registered() -> set:
    """Names in the registries of MMEngine and MMSegmentation. Any other name
    MMEngine would look for, and import, as a module."""
    return {
        name
        for room in (mmengine.registry, mmseg.registry)
        for registry in vars(room).values()
        if isinstance(registry, mmengine.registry.Registry)
        for name in registry.module_dict
    }


def _types(value: Any) -> Iterator[str]:
    """Every ``type`` at any depth."""
    if isinstance(value, dict):
        if isinstance(value.get('type'), str):
            yield value['type']
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _types(item)


def _check_scopes_and_files(values: dict, path: str) -> None:
    """Refuse what would make building import a module or read a pickle.

    A scope is a module that MMEngine imports; ``class_weight`` may be the name or
    the address of a file that MMSegmentation unpickles.
    """
    scopes = [values.get('default_scope', 'mmseg')]
    scopes += [value for key, value in _items(values) if key == '_scope_']
    for key, value in _items(values['model']):
        unpickles = key == 'class_weight' or isinstance(value, str) and (
            value.lower().split('?')[0].endswith(PICKLES))
        if unpickles and isinstance(value, str):
            raise InputError(f'the config in checkpoint {path} names the file '
                             f'{value} as {key}, which would be read; {REMEDY}')
    for scope in scopes:
        if scope not in SCOPES:
            raise InputError(
                f'the config in checkpoint {path} has the scope {scope!r}, which '
                f'is none of {", ".join(SCOPES)}; {REMEDY}')


def _items(value: Any) -> Iterator[tuple]:
    """(key, value) of every dict at any depth."""
    if isinstance(value, dict):
        yield from value.items()
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _items(item)


def _check_imports(custom: dict, path: str) -> None:
    """Modules are for the user to import, not for a file to choose."""
    names = custom.get('imports') or [] if isinstance(custom, dict) else None
    if not isinstance(names, (str, list, tuple)):
        raise InputError(f'the config in checkpoint {path} has custom_imports '
                         f'that name no modules; {REMEDY}')
    for name in [names] if isinstance(names, str) else names:
        if name not in sys.modules:
            raise InputError(
                f'checkpoint {path} was trained with the module {name}; import '
                f'it before, or {REMEDY}')
