"""EncNet and STDC-Seg for MMSegmentation.

Importing the package prepares mmengine, mmcv and mmseg (``compat``) and adds its
classes to MMSegmentation's registries. Those in ``REPLACED`` take the place of
MMSegmentation's, whose configs and checkpoints keep working with the same numbers.
``MMSEG_ENCSTDC_OVERRIDE=0`` keeps MMSegmentation's; this package's configs need ours.
"""
__version__ = '0.2.0'

from . import compat

compat.prepare()

from mmengine.registry import (  # noqa: E402
    DATA_SAMPLERS,
    HOOKS,
    MODEL_WRAPPERS,
    OPTIM_WRAPPERS,
)
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

# Names of MMSegmentation, with the same arguments, state-dict keys and numbers.
REPLACED = (
    (MODELS, backbones, ('STDCNet', 'STDCContextPathNet')),
    (MODELS, heads, ('EncHead', 'FCNHead', 'STDCHead')),
    (MODELS, segmentors, ('SegTTAModel', )),
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
    (DATASETS, datasets, ('CamVidDataset', 'ImageFolderDataset',
                          'SkipBadImages')),
    (DATA_SAMPLERS, datasets, ('RareClassSampler', )),
    (DATASETS, scenes, ('ScenesDataset', )),
    (TRANSFORMS, datasets, ('LoadSegImage', 'LoadSegAnnotations', 'ColorJitter',
                            'EnlargeToCrop', 'PackClassInputs',
                            'RandomResizedCrop')),
    (METRICS, evaluation, ('BoundaryMetric', 'ClassAccuracy', 'ConfusionMetric')),
    (METRICS, scenes, ('PairAccuracy', )),
    (PARAM_SCHEDULERS, engine, ('ExponentialWarmup', )),
    (HOOKS, engine, ('ChannelsLast', 'CountBadImages', 'SafeCheckpointHook')),
    (OPTIM_WRAPPERS, engine, ('BFloat16OptimWrapper', )),
    # The runner looks for wrappers in MMEngine's registry only.
    (MODEL_WRAPPERS, engine, ('CPUDistributedDataParallel', )),
)


def register() -> None:
    """Put the classes into their registries; calling it again is harmless."""
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
