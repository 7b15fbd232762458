"""Say in one line which key of a config a library failed at."""
import difflib
import inspect
import re
import traceback
from contextlib import contextmanager
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from mmengine.config import Config
from mmengine.registry import Registry, root
from torch.utils.data import DataLoader

from ..errors import InputError

__all__ = ['close_match', 'describe', 'naming']

NOT_REGISTERED = re.compile(r'Cannot find (\S+) in registry|(\S+) is not in the .+ '
                            'registry|None is not a callable|argument must be callable')
UNEXPECTED = re.compile(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword "
                        r"argument '(\w+)'")
MISSING = re.compile(r'missing \d+ required (?:positional|keyword-only) arguments?: '
                     "(.+)")
UNLABELLED = (
    'the data set has no labels; give data_prefix.seg_map_path, or write predictions '
    'alone: no LoadAnnotations in the pipeline, and test_evaluator=dict('
    "type='ConfusionMetric', format_only=True, output_dir=FOLDER); to train without "
    'validation, set val_dataloader, val_cfg and val_evaluator to None')
# Part of a library's message -> what to do.
REMEDIES = {
    'AmpOptimizerWrapper': 'mixed precision needs a GPU; set optim_wrapper.type to '
                           'OptimWrapper',
    'palette does not match': 'give palette one colour for each of the classes',
    'subset of classes': 'give classes that the type of the data set has, or use '
                         'type BaseSegDataset for others',
    'meta information of the': 'the data sets of ConcatDataset differ in classes or '
                               'palette; give each the same metainfo',
    'should be specified when testing': 'give metainfo=dict(classes=[...])',
    "'utf-8' codec can't decode": 'save ann_file, or the file of classes, as UTF-8',
    'levels of symbolic links': 'remove the link that leads to a folder above it',
    'out of memory': 'lower batch_size or the crop size',
    'seg_map_path': UNLABELLED,
    'gt_sem_seg': UNLABELLED,
    'only support by_epoch=True': 'set by_epoch=True; it steps after each validation',
    'Cannot infer the rule': "give rule='greater' or 'less'",
}
LONGEST = 100  # characters of a value in a message


@contextmanager
def naming(cfg: Config, key: str, objects: Iterable[Tuple[str, object]] = (),
           advice: str = '') -> Iterator[None]:
    """Turn any exception into an InputError that names a key of the config.

    An InputError stays as it is. The part of the config that failed is looked up
    below ``key``, from the failed build (:func:`compat.note_failures`) or from the
    objects that the traceback passes.

    Args:
        cfg: the config.
        key: of the part that is built or used, such as 'optim_wrapper'; 'config' for
            any part.
        objects: (key, object) of parts that may fail; the innermost is named.
        advice: what to do, if the failure is of no known kind.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(describe(error, cfg, key, objects, advice)) from error


def describe(error: Exception, cfg: Config, key: str,
             objects: Iterable[Tuple[str, object]] = (), advice: str = '') -> str:
    """Return the line of :func:`naming` for an exception."""
    registry, part = getattr(error, 'failed_build', (None, None))
    where = _path(cfg, key, part) or _used(error, objects, cfg) or key
    value = _value(cfg, where)
    text = _text(error)
    for pattern, tell in ((NOT_REGISTERED, _unregistered), (UNEXPECTED, _unexpected),
                          (MISSING, _missing)):
        match = pattern.search(text)
        if match:
            return tell(match, cfg, where, value, registry)
    advice = next((remedy for part, remedy in REMEDIES.items() if part in text),
                  advice or 'MMSEG_ENCSTDC_TRACEBACK=1 shows where')
    shown = f' = {_short(value)}' if value is not None and where != 'model' else ''
    return f'{where}{shown}: {type(error).__name__}: {_short(text, 200)}; {advice}'


def close_match(name: str, names: Iterable[str]) -> str:
    """Return '; did you mean X?' for the closest of some names, or ''."""
    names = {str(known).lower(): known for known in names}
    close = difflib.get_close_matches(str(name).lower(), list(names), 1)
    return f'; did you mean {names[close[0]]}?' if close else ''


def _unregistered(match: re.Match, cfg: Config, where: str, value: object,
                  registry: Optional[Registry]) -> str:
    name = (match[1] or match[2] or '').strip('"\'')
    top = re.split(r'[.\[]', where)[0]
    if name in ('', 'None'):  # the library asked its registry without a look
        found = [f'{key}.type' for key in _search(value, where, _unknown)]
        name = _value(cfg, found[0]) if found else name
    else:
        found = _search(_value(cfg, top), top, lambda node: node == name)
    key = next((path for path in found if path.startswith(where)),
               found[0] if found else f'{where}.type')
    known = close_match(name, _registered(registry) if registry and registry.name !=
                        'model' else _all_registered())
    return (f'{key} {name} is not registered'
            f'{known or "; is its custom_imports line there?"}')


def _unknown(node: object) -> bool:
    """Return whether a value is a dict of a type that no registry has."""
    return (isinstance(node, dict) and isinstance(node.get('type'), str)
            and node['type'].rpartition('.')[2] not in _all_registered())


def _all_registered() -> Dict[str, Callable]:
    """Return what all registries of MMEngine and their children have, by name."""
    found = {}
    for registry in vars(root).values():
        if isinstance(registry, Registry):
            found.update(_registered(registry))
    return found


def _registered(registry: Registry) -> Dict[str, Callable]:
    """Return what a registry, its ancestors and all their children have, by name."""
    while registry.parent is not None:
        registry = registry.parent
    found, rooms = {}, [registry]
    while rooms:
        room = rooms.pop()
        found.update(room.module_dict)
        rooms += room.children.values()
    return found


def _unexpected(match: re.Match, cfg: Config, where: str, value: object,
                registry: Optional[Registry]) -> str:
    owner, argument = match.groups()
    if not (isinstance(value, dict) and argument in value):
        def has(node):
            return isinstance(node, dict) and argument in node
        found = _search(value, where, has) or [
            key.lstrip('.') for key in _search(dict(cfg.items()), '', has)]
        where, value = (found[0], _value(cfg, found[0])) if found else (where, value)
    kind = value.get('type', owner) if isinstance(value, dict) else owner
    if owner == 'DataLoader':
        kind = DataLoader
    elif isinstance(kind, str):
        kind = (_registered(registry) if registry else _all_registered()).get(
            kind.rpartition('.')[2], kind)
    names = _arguments(kind)
    accepted = f'; it has {", ".join(names)}' if names else ''
    name = getattr(kind, '__name__', kind)
    return (f'{where}.{argument}: {name} has no argument {argument}'
            f'{close_match(argument, names) or accepted or "; remove it"}')


def _missing(match: re.Match, cfg: Config, where: str, value: object,
             registry: Optional[Registry]) -> str:
    kind = value.get('type', 'it') if isinstance(value, dict) else 'it'
    return f'{where} lacks {match[1]}, which {kind} needs; add it'


def _arguments(kind: Optional[Callable]) -> List[str]:
    """Return the names of the arguments of a class, and of those it passes on to."""
    names = {}
    for base in getattr(kind, '__mro__', [kind] if callable(kind) else []):
        if base is object:
            continue
        function = base.__dict__.get('__init__', None) if inspect.isclass(
            base) else base
        if function is None:
            continue
        parameters = inspect.signature(function).parameters.values()
        names.update({p.name: None for p in parameters
                      if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)})
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in names if name != 'self']


def _text(error: Exception) -> str:
    """Return the last line of a message; for a bare assert, the assertion."""
    text = str(error).strip()
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])
    if not text:
        text = traceback.extract_tb(error.__traceback__)[-1].line or repr(error)
    lines = [line for line in text.splitlines() if line.strip()]
    known = [line for line in lines if any(part in line for part in REMEDIES)]
    return (known or lines)[-1].strip()


def _short(value: object, longest: int = LONGEST) -> str:
    text = value if isinstance(value, str) and longest > LONGEST else repr(value)
    text = ' '.join(text.split())
    return text if len(text) <= longest else text[:longest - 4] + ' ...'


def _used(error: Exception, objects: Iterable[Tuple[str, object]],
          cfg: Config) -> Optional[str]:
    """Return the key of the innermost object that a traceback passes.

    A key that the config does not have is shortened to one that it has.
    """
    keys = {id(item): key for key, item in objects}
    owners = [frame.f_locals.get('self')
              for frame, _ in traceback.walk_tb(error.__traceback__)]
    passed = [keys[id(owner)] for owner in owners if id(owner) in keys]
    if not passed:
        return None
    key = passed[-1]
    while '.' in key and _value(cfg, key) is None:
        key = key.rpartition('.')[0]
    return key


def _path(cfg: Config, key: str, part: object) -> Optional[str]:
    """Return the key of a part of the config; None if it is not found."""
    if not isinstance(part, dict):
        return None
    whole = key == 'config'
    node = dict(cfg.items()) if whole else _value(cfg, key)
    key = '' if whole else key
    equal = _search(node, key, lambda other: isinstance(other, dict) and other == part)
    alike = _search(node, key, lambda other: isinstance(other, dict)
                    and other.get('type') == part.get('type') is not None)
    if equal or not alike:
        return equal[0].lstrip('.') if equal else None

    def shared(path):  # a library adds arguments before it builds
        other = _value(cfg, path.lstrip('.'))
        return sum(name in part and part[name] == other[name] for name in other)

    return max(alike, key=shared).lstrip('.')


def _search(node: object, key: str, wanted: Callable) -> List[str]:
    """Return the keys of all values at any depth that ``wanted`` accepts."""
    found = [key] if wanted(node) else []
    if isinstance(node, dict):
        for name, child in node.items():
            found += _search(child, f'{key}.{name}', wanted)
    elif isinstance(node, (list, tuple)):
        for i, child in enumerate(node):
            found += _search(child, f'{key}[{i}]', wanted)
    return found


def _value(cfg: Config, key: str) -> object:
    """Return the value at a key such as 'a.b[2].c'; None if there is none."""
    node = cfg
    for name, index in re.findall(r'([^.\[\]]+)|\[(\d+)\]', key):
        try:
            node = node[name] if name else node[int(index)]
        except (KeyError, IndexError, TypeError, AttributeError):
            return None
    return node
