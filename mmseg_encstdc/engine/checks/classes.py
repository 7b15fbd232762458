"""Check that the classes of a config occur in its labels, with one id each."""
import os.path as osp
from typing import Optional, Sequence

from mmengine.config import Config
from mmengine.dataset import BaseDataset

from ...datasets.label_counts import LabelCounts
from ...datasets.sample_checks import is_local
from ...errors import InputError

__all__ = [
    'check_class_file', 'check_metainfo', 'check_same_ids', 'check_strictness',
    'class_fault', 'ignored_ids'
]

LEVELS = ('error', 'warn')
ACCEPTED = "accepted is data_checks = dict(missing_classes='error') or 'warn'"
ESCAPE = "; if it is meant so, set data_checks = dict(missing_classes='warn')"


def check_strictness(cfg: Config) -> None:
    """Raise InputError unless the config's ``data_checks`` is valid."""
    checks = cfg.get('data_checks', {})
    if not isinstance(checks, dict):
        raise InputError(f'data_checks is {checks!r}; {ACCEPTED}')
    for key, value in checks.items():
        if key != 'missing_classes':
            raise InputError(f'data_checks has no key {key}; {ACCEPTED}')
        if value not in LEVELS:
            raise InputError(f'data_checks.missing_classes is {value!r}; {ACCEPTED}')


def check_class_file(config: dict, key: str) -> None:
    """Raise InputError for a missing file of classes.

    MMEngine would take each character of its name for a class.

    Args:
        config: of a data set.
        key: of the data set, for messages.
    """
    given = (config.get('metainfo') or {}).get('classes')
    if isinstance(given, str) and is_local(given) and not osp.isfile(given):
        raise InputError(f'{key}.metainfo.classes: {given} does not exist; give a list '
                         'of names, or a file with one name a line')


def check_metainfo(config: dict, dataset: BaseDataset, key: str) -> None:
    """Raise InputError for class names, colours and keys that are not valid.

    Args:
        config: of a data set.
        dataset: built from it.
        key: of the data set, for messages.
    """
    names = list(dataset.metainfo.get('classes') or ())
    if '' in names:
        raise InputError(f'{key}.metainfo.classes: name {names.index("") + 1} of '
                         f'{len(names)} is empty; remove it')
    repeated = sorted({str(name) for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f'{key}.metainfo.classes names {", ".join(repeated)} more '
                         'than once; give each class a name of its own')
    for color in dataset.metainfo.get('palette') or ():
        if len(color) != 3 or not all(value in range(256) for value in color):
            raise InputError(f'{key}.metainfo.palette has the colour {color!r}; give '
                             'red, green and blue, 0 to 255, such as [128, 64, 128]')
    given = config.get('metainfo') or {}
    for name, remedy in (
            ('label_map', 'map ids with LoadSegAnnotations(values=...)'),
            ('reduce_zero_label', 'set reduce_zero_label of the data set itself')):
        if name in given and given[name] != dataset.metainfo.get(name):
            raise InputError(f'{key}.metainfo.{name} is {given[name]}, which '
                             f'{type(dataset).__name__} does not read; remove it and '
                             f'{remedy}')


def class_fault(cfg: Config, loader: str, counts: LabelCounts,
                names: Optional[Sequence[str]]) -> Optional[Exception]:
    """Return the fault of the classes that occur in the labels of a loader, or None.

    Args:
        cfg: with ``data_checks``.
        loader: key of the data loader.
        counts: its labels.
        names: of its classes.

    Returns:
        An InputError, if a class is missing in training although all labels were read,
        or nearly all pixels are ignored; a UserWarning where this may be right.
    """
    line = counts.complaint(loader, names) if names else ''
    if not line:
        return None
    strict = cfg.get('data_checks', {}).get('missing_classes', 'error') == 'error'
    certain = counts.exact and (
        counts.read == counts.total or counts.is_ignored())
    if strict and certain and loader == 'train_dataloader':
        return InputError(line + ESCAPE)
    return UserWarning(line)


def ignored_ids(cfg: Config) -> set:
    """Return the ids that the heads of a model ignore."""
    heads = cfg.model.get('decode_head') or {}
    return {255, *(head.get('ignore_index', 255)
                   for head in (heads if isinstance(heads, list) else [heads]))}


def check_same_ids(first: str, expected: Sequence[str], loader: str,
                   names: Sequence[str]) -> None:
    """Raise InputError if a class has different ids in two loaders.

    Args:
        first: key of a data loader.
        expected: its classes.
        loader: key of another one.
        names: its classes.
    """
    for i, name in enumerate(names):
        if [*names].count(name) == [*expected].count(name) == 1:
            if (other := [*expected].index(name)) != i:
                raise InputError(
                    f'class {name} is {other} in {first} and {i} in {loader}; give '
                    'both the same metainfo.classes in one order')
