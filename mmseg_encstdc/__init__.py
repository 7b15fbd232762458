"""EncNet and STDC-Seg for MMSegmentation.

Importing the package makes the stack usable (``compat``) and registers
everything below in MMSegmentation's registries. The names in ``REPLACED`` are
MMSegmentation's own: its configs and checkpoints keep working, with the same
numbers. ``MMSEG_ENCSTDC_OVERRIDE=0`` leaves those alone; the configs of this
package need them.
"""
__version__ = '0.2.0'

from . import compat

compat.prepare()

from mmengine.registry import MODEL_WRAPPERS  # noqa: E402
from mmseg.registry import (  # noqa: E402
    DATASETS,
    METRICS,
    MODELS,
    PARAM_SCHEDULERS,
    TASK_UTILS,
    TRANSFORMS,
)

from . import (  # noqa: E402
    backbones,
    classifiers,
    datasets,
    engine,
    evaluation,
    heads,
    layers,
    losses,
    scenes,
    segmentors,
)
from .config_files import config_file  # noqa: E402, F401

# Stock entries, with the same arguments, state-dict keys and numbers.
REPLACED = (
    (MODELS, backbones, ('STDCNet', 'STDCContextPathNet')),
    (MODELS, heads, ('EncHead', 'FCNHead', 'STDCHead')),
    (TASK_UTILS, losses, ('OHEMPixelSampler', )),
)
NEW = (
    (MODELS, layers, ('Encoding', 'ContextEncoding')),
    (MODELS, scenes, ('LocalNet', )),
    (MODELS, heads, ('SegHead', 'DetailHead')),
    (MODELS, losses, ('OhemCELoss', 'BinaryDiceLoss', 'DetailAggregateLoss',
                      'SemanticEncodingLoss')),
    (MODELS, segmentors, ('ChipEncoderDecoder', )),
    (MODELS, classifiers, ('STDCClassifier', )),
    (DATASETS, datasets, ('CamVidDataset', 'ImageFolderDataset')),
    (DATASETS, scenes, ('ScenesDataset', )),
    (TRANSFORMS, datasets, ('LoadSegImage', 'LoadSegAnnotations', 'ColorJitter',
                            'EnlargeToCrop', 'PackClassInputs',
                            'RandomResizedCrop')),
    (METRICS, evaluation, ('ClassAccuracy', 'ConfusionMetric')),
    (METRICS, scenes, ('PairAccuracy', )),
    (PARAM_SCHEDULERS, engine, ('ExponentialWarmup', )),
    # MMEngine's own registry: the runner looks for wrappers nowhere else.
    (MODEL_WRAPPERS, engine, ('CPUDistributedDataParallel', )),
)


def register() -> None:
    """Put the classes into their registries; once or many times."""
    replaces = compat.replaces_stock()
    for registry, room, names in NEW + (REPLACED if replaces else ()):
        for name in names:
            registry.register_module(
                name=name, module=getattr(room, name), force=True)
    if replaces:
        names = [name for _, _, group in REPLACED for name in group]
        compat.say_once('mmseg_encstdc replaces ' + ', '.join(names) + ' of '
                        f'MMSegmentation ({compat.OVERRIDE}=0 leaves them alone)')


register()
