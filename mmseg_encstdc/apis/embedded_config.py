"""Read the config that training wrote into a checkpoint, without executing it.

MMEngine stores the config as Python text. Executing that text, or building a
``type`` that names an arbitrary function, would let a downloaded checkpoint run
any code. The text may therefore hold plain values only, and every ``type`` must
be registered already.
"""
import sys
from typing import Any, Iterator, Set, Tuple

import mmengine.registry
import mmseg.registry
from mmengine.config import Config

from ..engine.config_text import config_values
from ..errors import InputError

__all__ = ['embedded_config']

SCOPES = ('mmseg', 'mmengine')
PICKLE_SUFFIXES = ('.pkl', '.pickle', '.npy', '.npz')
REMEDY = 'give the config that it was trained with as config='


def embedded_config(checkpoint: dict, path: str) -> Config:
    """Return the config in the meta of a checkpoint.

    Args:
        checkpoint: what ``read_checkpoint`` returns.
        path: file of the checkpoint, for messages.

    Raises:
        InputError: when there is no config, or when it holds more than plain
            values, needs a module that is not imported, or has a type that is
            not registered.
    """
    text = checkpoint['meta'].get('cfg')
    if not isinstance(text, str):
        raise InputError(f'checkpoint {path} holds no config; {REMEDY}')
    config = f'the config in checkpoint {path}'
    try:
        values = config_values(text)
    except ValueError as error:
        raise InputError(
            f'{config} is more than plain values ({error}); {REMEDY}') from error
    _check_imports(values.get('custom_imports') or {}, path)
    fault = next(_faults(values), None)
    if fault:
        raise InputError(f'{config} {fault}; {REMEDY}')
    try:
        return Config(values)
    except (KeyError, TypeError, ValueError) as error:  # a reserved name
        raise InputError(f'{config} cannot be read ({error}); {REMEDY}') from error


def _check_imports(custom: Any, path: str) -> None:
    """Raise InputError unless every module of ``custom_imports`` is imported.

    Only the user may choose which modules are imported.
    """
    names = custom.get('imports') or [] if isinstance(custom, dict) else None
    if not isinstance(names, (str, list, tuple)):
        raise InputError(f'the config in checkpoint {path} has custom_imports '
                         f'that name no modules; {REMEDY}')
    for name in [names] if isinstance(names, str) else names:
        if name not in sys.modules:
            raise InputError(
                f'checkpoint {path} was trained with the module {name}; import '
                f'it before, or {REMEDY}')


def _faults(values: dict) -> Iterator[str]:
    """Yield the reasons why a config is incomplete or unsafe to build.

    MMEngine imports a scope, and a type that is not registered, as a module.
    MMSegmentation unpickles the file or address that ``class_weight`` names.
    """
    known = _registered()
    for key in ('model', 'test_dataloader'):
        if not isinstance(values.get(key), dict):
            yield f'has no {key}'
            return
        unknown = {value for name, value in _items(values[key])
                   if name == 'type' and isinstance(value, str)} - known
        if unknown:
            yield f'has the type {min(unknown)}, which is not registered'
    for key, value in _items(values['model']):
        if isinstance(value, str) and (
                key == 'class_weight' or
                value.lower().split('?')[0].endswith(PICKLE_SUFFIXES)):
            yield f'names the file {value} as {key}, which would be read'
    scopes = [values.get('default_scope', 'mmseg')]
    scopes += [value for key, value in _items(values) if key == '_scope_']
    for scope in scopes:
        if scope not in SCOPES:
            yield f'has the scope {scope!r}, which is none of {", ".join(SCOPES)}'


def _registered() -> Set[str]:
    """Return the names in all registries of MMEngine and MMSegmentation."""
    return {
        name
        for package in (mmengine.registry, mmseg.registry)
        for registry in vars(package).values()
        if isinstance(registry, mmengine.registry.Registry)
        for name in registry.module_dict
    }


def _items(value: Any) -> Iterator[Tuple[str, Any]]:
    """Yield key and value of every dictionary at any depth."""
    if isinstance(value, dict):
        yield from value.items()
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _items(item)
