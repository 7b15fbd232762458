"""Check the values of a config that must be the same in several places."""
from typing import Any, Iterator, List, Tuple

from mmengine.config import Config

from ...compat.data import metainfo_without_files
from ...errors import InputError
from ..config_errors import naming
from ..configs import classes_of, datasets_of, transforms_of
from .head_configs import class_heads_of, heads_of, losses_of, name_of

__all__ = ['check_agreement', 'check_class_ids', 'check_trained_classes']

IGNORED = 255  # the default of every part, and what reduce_zero_label writes
# Argument of a transform that is written into labels, or is left out of counts.
LABEL_PADDING = {'RandomRotate': 'seg_pad_val', 'RandomMosaic': 'seg_pad_val',
                 'GenerateEdge': 'ignore_index'}
# Losses that have an argument of their own for it, and its default.
LOSSES = {'OhemCrossEntropy': ('ignore_label', IGNORED),
          'DetailAggregateLoss': ('ignore_index', None)}
METRICS = ('BoundaryMetric', 'ConfusionMetric', 'IoUMetric')


def check_agreement(cfg: Config, loaders: List[str],
                    training: bool = False) -> None:
    """Check that all parts ignore the same id, and that class ids agree.

    Args:
        cfg: a whole experiment.
        loaders: keys of the data loaders that will be used.
        training: also check what is written into the labels of training.

    Raises:
        InputError: naming both keys and their values.
    """
    check_class_ids([
        (key, classes_of(dataset)) for loader in loaders
        for key, dataset in _datasets(cfg, loader)])
    heads = class_heads_of(cfg.model)
    if not heads:
        return
    first, head = heads[0]
    ignored = head.get('ignore_index', IGNORED)
    if ignored is None:  # of MMSegmentation's mask losses
        return
    first = f'{first}.ignore_index'
    for key, value in _ignored_ids(cfg, loaders, training):
        if value not in (ignored, None):
            raise InputError(f'{first} is {ignored}, but {key} is {value}; set both '
                             'to the same id')
    if ignored != IGNORED:
        for loader in loaders:
            for dataset in datasets_of(cfg[loader].dataset):
                _check_written(cfg, first, ignored, loader, dataset)


def _ignored_ids(cfg: Config, loaders: List[str],
                 training: bool) -> Iterator[Tuple[str, Any]]:
    """Yield key and value of each id that the first head must ignore too."""
    for key, head in class_heads_of(cfg.model):
        yield f'{key}.ignore_index', head.get('ignore_index', IGNORED)
    for key, head in heads_of(cfg.model):
        for loss in losses_of(head):
            if name_of(loss) in LOSSES:
                name, default = LOSSES[name_of(loss)]
                yield f'{key}.loss_decode.{name}', loss.get(name, default)
    for loader in loaders:
        for key, dataset in _datasets(cfg, loader):
            yield f'{key}.ignore_index', dataset.get('ignore_index')
        trains = training and loader == 'train_dataloader'
        for key, transform in transforms_of(cfg[loader].dataset, f'{loader}.dataset'):
            if transform.get('type') == 'LoadSegAnnotations':
                yield (f'{key}.ignore_index',
                       transform.get('ignore_index', IGNORED))
            elif trains:
                yield from _padding(key, transform)
        if loader != 'train_dataloader':
            yield from _metric_ids(cfg, loader.replace('dataloader', 'evaluator'))
    if training and 'data_preprocessor' in cfg.model:
        yield ('model.data_preprocessor.seg_pad_val',
               cfg.model.data_preprocessor.get('seg_pad_val', IGNORED))


def _datasets(cfg: Config, loader: str) -> Iterator[Tuple[str, dict]]:
    """Yield key and config of each data set of a loader, also inside wrappers."""
    for key, part in transforms_of(cfg[loader].dataset, f'{loader}.dataset'):
        if 'datasets' not in part and not isinstance(part.get('dataset'), dict) and (
                'pipeline' not in key):
            yield key, part


def _padding(key: str, transform: dict) -> Iterator[Tuple[str, Any]]:
    """Yield key and value of the id that a transform writes or leaves out."""
    kind = transform.get('type')
    if kind == 'Pad':
        value = transform.get('pad_val')
        value = value.get('seg', IGNORED) if isinstance(value, dict) else IGNORED
        if transform.get('padding_mode', 'constant') == 'constant':
            yield f'{key}.pad_val.seg', value
    elif kind == 'RandomCrop':
        if transform.get('cat_max_ratio', 1) < 1:  # else it counts nothing
            yield f'{key}.ignore_index', transform.get('ignore_index', IGNORED)
    elif kind in LABEL_PADDING:
        name = LABEL_PADDING[kind]
        yield f'{key}.{name}', transform.get(name, IGNORED)


def _metric_ids(cfg: Config, name: str) -> Iterator[Tuple[str, Any]]:
    """Yield key and value of the id that each metric of an evaluator leaves out."""
    metrics = cfg.get(name) or []
    alone = isinstance(metrics, dict)
    for i, metric in enumerate([metrics] if alone else metrics):
        if metric.get('type') in METRICS:
            key = name if alone else f'{name}[{i}]'
            yield f'{key}.ignore_index', metric.get('ignore_index', IGNORED)


def _check_written(cfg: Config, first: str, ignored: int, loader: str,
                   dataset: dict) -> None:
    """Raise InputError if a data set writes 255 into labels, which is not ignored."""
    with naming(cfg, f'{loader}.dataset'):
        meta = metainfo_without_files(dataset)
    reduced = meta.get('reduce_zero_label')
    if reduced or IGNORED in (meta.get('label_map') or {}).values():
        key = 'reduce_zero_label' if reduced else 'label map'
        raise InputError(f'{first} is {ignored}, but the {key} of {loader}.dataset '
                         f'writes {IGNORED} for what is ignored; set ignore_index to '
                         f'{IGNORED} everywhere')


def check_class_ids(found: List[Tuple[str, tuple]]) -> None:
    """Raise InputError if a class has one id in one place and another in another.

    Args:
        found: key of a place, and its class names in the order of their ids.
    """
    first, expected = next(((key, names) for key, names in found if names), ('', ()))
    for key, names in found:
        for i, name in enumerate(names):
            if name in expected and list(expected[i:i + 1]) != [name]:
                raise InputError(
                    f'class {name} is {list(expected).index(name)} in {first} and {i} '
                    f'in {key}; give metainfo.classes of both in one order')


def check_trained_classes(cfg: Config, meta: dict, path: str) -> None:
    """Raise InputError if a checkpoint was trained with classes in another order.

    Args:
        cfg: a whole experiment.
        meta: of the checkpoint.
        path: of the checkpoint, for messages.
    """
    found = meta.get('dataset_meta') or dict(classes=meta.get('CLASSES'))
    trained = found.get('classes') or () if isinstance(found, dict) else ()
    check_class_ids([(f'checkpoint {path}', tuple(trained))] + [
        ('test_dataloader.dataset', tuple(classes_of(dataset)))
        for dataset in datasets_of(cfg.test_dataloader.dataset)])
