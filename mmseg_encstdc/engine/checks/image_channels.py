"""Check that images, their normalisation and the backbone have the same channels."""
import inspect
from typing import Iterator, List, NamedTuple, Optional, Tuple

from mmengine.config import Config
from mmseg.registry import MODELS, TRANSFORMS

from ...datasets.image_checks import image_loader
from ...errors import InputError
from ..configs import datasets_of

__all__ = ['check_image_channels', 'input_format', 'network_channels']

# Transforms that make 8 bits of an image, and those that need (H, W, 3) as well: others
# they reject, or reduce to three bands.
NEED_EIGHT_BITS = ('AdjustGamma', 'CLAHE', 'RandomGrayscale')
NEED_COLOURS = ('Albu', 'ColorJitter', 'PhotoMetricDistortion')
# Transforms of mmcv and MMSegmentation that may change the number of channels.
CHANGE_BANDS = ('Albu', 'ConcatCDInput', 'RandomGrayscale', 'RGB2Gray')
PREPROCESSORS = ('SegDataPreProcessor', 'ImgDataPreprocessor')
KNOWN = ('mmcv', 'mmseg', 'mmseg_encstdc')
IMAGES = 'images of'
PAD_BANDS = 4  # OpenCV's limit in mmcv's Pad


class Part(NamedTuple):
    """Name a key of the config and the number of channels that it stands for."""
    key: str
    channels: int


def check_image_channels(cfg: Config, loaders: List[str]) -> None:
    """Check that loaders, mean, std and backbone agree on the channels of an image.

    A mean and std of one value serve any number of channels, and one channel is
    normalised to as many as mean and std have.

    Args:
        cfg: a whole experiment.
        loaders: keys of the data loaders that will be used.

    Raises:
        InputError: naming the keys that do not agree, and a transform that cannot have
            the images of its pipeline.
    """
    norms, networks = list(_normalisation(cfg)), list(network_channels(cfg.model))
    for loader in loaders:
        for dataset in datasets_of(cfg[loader].dataset):
            pipeline = dataset.get('pipeline') or []
            key = f'{loader}.dataset.pipeline'
            bands, dtype = _image_bands(pipeline)
            _check_transforms(pipeline, key, bands, dtype)
            images = [] if bands is None or _may_change(pipeline) else [
                Part(f'{IMAGES} {key}', bands)]
            _check_agree(images + norms, networks)


def _check_agree(inputs: List[Part], networks: List[Part]) -> None:
    """Raise InputError unless normalised images have the channels of the networks.

    Args:
        inputs: images, if known, mean and std, of which one value serves all channels.
        networks: each with its ``in_channels``.
    """
    wide = [part for part in inputs if part.channels > 1]
    for part in wide[1:]:
        if part.channels != wide[0].channels:
            _fail(wide[0], part)
    images = [part for part in inputs if part.key.startswith(IMAGES)]
    for network in networks:
        for part in (wide or images)[:1]:
            if part.channels != network.channels:
                _fail(part, network)


def _fail(one: Part, other: Part) -> None:
    words = ' and '.join(f'{part.key}: {part.channels}' for part in (one, other))
    raise InputError(
        f'channels differ, {words}; bands of LoadSegImage in each pipeline, mean and '
        'std of model.data_preprocessor and in_channels of the backbone must agree')


def _normalisation(cfg: Config) -> Iterator[Part]:
    """Yield the lengths of mean and std."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get(
        'data_preprocessor') or {}
    if preprocessor.get('type') not in PREPROCESSORS:
        return
    for name in ('mean', 'std'):
        values = preprocessor.get(name)
        if isinstance(values, (list, tuple)):
            yield Part(f'model.data_preprocessor.{name}', len(values))


def network_channels(model: dict) -> Iterator[Part]:
    """Yield the ``in_channels`` of a model's backbone, and of the one inside it."""
    key, part = 'model.backbone', model.get('backbone')
    while isinstance(part, dict) and 'type' in part:
        found = part.get('in_channels', _default_channels(part['type']))
        if isinstance(found, int):
            yield Part(f'{key}.in_channels', found)
        key, part = f'{key}.backbone_cfg', part.get('backbone_cfg')


def _default_channels(kind: object) -> Optional[int]:
    """Return the default of a backbone's ``in_channels``, None if it takes none."""
    backbone = MODELS.get(kind) if isinstance(kind, str) else kind
    for parent in getattr(backbone, '__mro__', ()):  # a child may pass **kwargs on
        parameter = inspect.signature(parent.__init__).parameters.get('in_channels')
        if parameter:
            return parameter.default
    return None


def _image_bands(pipeline: List[dict]) -> Tuple[Optional[int], Optional[str]]:
    """Return the bands and the type of the pixels that a pipeline's loader gives.

    Returns:
        (bands, NumPy's name of the type in the file); None where the config does not
        tell.
    """
    loader = image_loader(pipeline)
    if loader is None or loader.imdecode_backend == 'tifffile':
        return None, None
    if loader.color_type == 'unchanged':
        return None, None
    if loader.color_type.startswith('grayscale'):
        return 1, 'uint8'
    return loader.bands, loader.dtype


def input_format(cfg: Config) -> Tuple[int, Optional[str]]:
    """Return the bands and the type of the pixels that the test loader gives.

    Returns:
        (bands, NumPy's name of the type in the file, None where the config does not
        tell).
    """
    dataset = next(datasets_of(cfg.test_dataloader.dataset))
    bands, dtype = _image_bands(dataset.get('pipeline') or [])
    network = next(network_channels(cfg.model), None)
    return bands or (network.channels if network else 3), dtype


def _check_transforms(pipeline: List[dict], key: str, bands: Optional[int],
                      dtype: Optional[str]) -> None:
    """Raise InputError for a transform that rejects such images or spoils them."""
    for name in _names(pipeline):
        if dtype and (name in NEED_COLOURS and (bands, dtype) != (3, 'uint8')
                      or name in NEED_EIGHT_BITS and dtype != 'uint8'):
            needs = '3 bands of uint8' if name in NEED_COLOURS else 'uint8'
            raise InputError(f'{key}: {name} is for images of {needs}, but the loader '
                             f'gives {bands} of {dtype}; leave it out')
        if name == 'Pad' and (bands or 0) > PAD_BANDS:
            raise InputError(
                f'{key}: Pad cannot pad images of {bands} bands, at most {PAD_BANDS}; '
                'leave it out and set size of model.data_preprocessor to the crop '
                'size, which pads with the mean, and size_divisor there to None')


def _may_change(pipeline: List[dict]) -> bool:
    """Return whether a transform after the loader may change the number of bands."""
    for name in _names(pipeline):
        kind = TRANSFORMS.get(name)
        if (kind is None or name in CHANGE_BANDS
                or kind.__module__.split('.')[0] not in KNOWN):
            return True
    return False


def _names(steps: object) -> Iterator[str]:
    """Yield the types of transforms at any depth of a pipeline."""
    if isinstance(steps, dict):
        kind = steps.get('type')
        if isinstance(kind, (str, type)):
            yield kind if isinstance(kind, str) else kind.__name__
        yield from _names(steps.get('transforms'))
        yield from _names(steps.get('transform'))
    elif isinstance(steps, (list, tuple)):
        for step in steps:
            yield from _names(step)
