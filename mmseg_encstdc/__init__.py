"""EncNet and STDC-Seg for MMSegmentation.

Importing the package makes the stack usable (``compat``) and registers
everything below in MMSegmentation's registries.
"""
__version__ = '0.1.0'

from . import compat

compat.prepare()

from mmengine.registry import MODEL_WRAPPERS  # noqa: E402
from mmseg.registry import (  # noqa: E402
    DATASETS,
    METRICS,
    MODELS,
    PARAM_SCHEDULERS,
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
    segmentors,
)

# EncHead, STDCNet and STDCContextPathNet replace the stock entries, with the
# same arguments, state-dict keys and numbers; every other name is new.
REGISTERED = (
    (MODELS, layers, ('Encoding', 'ContextEncoding')),
    (MODELS, backbones, ('LocalNet', 'STDCNet', 'STDCContextPathNet')),
    (MODELS, heads, ('EncHead', 'SegHead', 'DetailHead')),
    (MODELS, losses, ('OhemCELoss', 'BinaryDiceLoss', 'DetailAggregateLoss',
                      'SemanticEncodingLoss')),
    (MODELS, segmentors, ('ChipEncoderDecoder', )),
    (MODELS, classifiers, ('STDCClassifier', )),
    (DATASETS, datasets, ('CamVidDataset', 'ImageFolderDataset',
                          'ScenesDataset')),
    (TRANSFORMS, datasets, ('LoadSegImage', 'LoadSegAnnotations', 'ColorJitter',
                            'EnlargeToCrop', 'PackClassInputs',
                            'RandomResizedCrop')),
    (METRICS, evaluation, ('ClassAccuracy', 'ConfusionMetric',
                           'PairAccuracy')),
    (PARAM_SCHEDULERS, engine, ('ExponentialWarmup', )),
    # MMEngine's own registry: the runner looks for wrappers nowhere else.
    (MODEL_WRAPPERS, engine, ('CPUDistributedDataParallel', )),
)


def register() -> None:
    """Put every class of :data:`REGISTERED` into its registry."""
    for registry, room, names in REGISTERED:
        for name in names:
            registry.register_module(
                name=name, module=getattr(room, name), force=True)


register()
