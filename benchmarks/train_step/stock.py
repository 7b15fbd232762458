"""The network of one of our configs, built from MMSegmentation's own parts.

This package replaces names in MMSegmentation's registries, so the stock classes
go into the config themselves, as ``type``.
"""
import inspect
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set

from mmseg_encstdc import compat  # first: makes mmseg importable

from mmengine.registry import init_default_scope  # isort: skip
from mmseg.models.backbones.stdc import STDCContextPathNet, STDCNet
from mmseg.models.decode_heads.enc_head import EncHead
from mmseg.models.decode_heads.fcn_head import FCNHead
from mmseg.models.decode_heads.stdc_head import STDCHead
from mmseg.models.losses.cross_entropy_loss import CrossEntropyLoss
from mmseg.models.losses.dice_loss import DiceLoss
from mmseg.models.segmentors.encoder_decoder import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures.sampler.ohem_pixel_sampler import OHEMPixelSampler
from torch import nn

from mmseg_encstdc.errors import InputError

from .shapes import Shape

__all__ = ['Translation', 'alone', 'build', 'check_is_stock', 'translate']

OURS = compat.__name__.split('.')[0]
SYNCHRONISED = ('SyncBN', 'MMSyncBN')

# What stands for a registered name in the stock network.
STOCK = dict(
    ChipEncoderDecoder=EncoderDecoder, EncoderDecoder=EncoderDecoder,
    STDCNet=STDCNet, STDCContextPathNet=STDCContextPathNet,
    EncHead=EncHead, SegHead=FCNHead, FCNHead=FCNHead,
    DetailHead=STDCHead, STDCHead=STDCHead,
    CrossEntropyLoss=CrossEntropyLoss, SemanticEncodingLoss=CrossEntropyLoss,
    DiceLoss=DiceLoss, OHEMPixelSampler=OHEMPixelSampler)
# Our arguments that change the network, with the values at which they do not.
NEUTRAL = dict(
    STDCNet=dict(out_strides=(8, 16, 32)),
    STDCContextPathNet=dict(detail_strides=()))


class Translation(NamedTuple):
    """A stock config, and the arguments of ours that it has no place for."""
    config: dict
    dropped: List[str]  # their keys, of those that the config sets


def alone(config: Any) -> Any:
    """A config for one process that loads no file.

    SyncBN becomes BN; ``init_cfg`` of a file and ``pretrained`` are left out.
    """
    if isinstance(config, (list, tuple)):
        return type(config)(map(alone, config))
    if not isinstance(config, dict):
        return config
    kept = {key: alone(value) for key, value in config.items()
            if key != 'pretrained' and not (
                key == 'init_cfg' and names_a_file(value))}
    if kept.get('type') in SYNCHRONISED:
        kept['type'] = 'BN'
    return kept


def names_a_file(init_cfg: Any) -> bool:
    return isinstance(init_cfg, dict) and 'checkpoint' in init_cfg


def translate(config: dict, shape: Shape) -> Translation:
    """The model config of the stock network.

    Args:
        config (dict): of a model of ours, or of a part; left as it is.
        shape (Shape): of the batch: stock's OHEM keeps a number of pixels.

    Raises:
        InputError: naming the key and the type that has no counterpart.
    """
    dropped = []
    return Translation(part(alone(config), 'model', shape, dropped), dropped)


def part(config: Any, key: str, shape: Shape, dropped: List[str]) -> Any:
    """A value of the config, with all that is below it."""
    if isinstance(config, (list, tuple)):
        return type(config)(part(value, f'{key}[{i}]', shape, dropped)
                            for i, value in enumerate(config))
    if not isinstance(config, dict):
        return config
    if isinstance(config.get('type'), str):
        config = counterpart(config, key, shape, dropped)
    return {name: value if name == 'init_cfg' else
            part(value, f'{key}.{name}', shape, dropped)
            for name, value in config.items()}


def counterpart(config: dict, key: str, shape: Shape,
                dropped: List[str]) -> dict:
    """The config of one part, with the stock class as its type.

    What our class does by default and stock does not is written out.

    Raises:
        InputError: when stock has no such part, or cannot be set so.
    """
    name = config['type'].rpartition('.')[2]
    ours = MODELS.get(name)
    if name not in STOCK:
        if ours is not None and is_ours(ours):
            raise InputError(
                f'{key}.type {name} is of this project and has no counterpart '
                'in MMSegmentation; it cannot be compared')
        return config
    written, config = set(config), {**defaults(ours), **config}
    for argument, neutral in NEUTRAL.get(name, {}).items():
        value = config.get(argument, neutral)
        if tuple(value) != neutral:
            raise InputError(f'{key}.{argument} {tuple(value)} has no '
                             'counterpart in MMSegmentation; leave it out')
    config = RULES.get(name, unchanged)(config, key, shape)
    stock = STOCK[name]
    extra = arguments(ours) - arguments(stock) - {'type'}
    dropped += sorted(f'{key}.{each}' for each in extra & written)
    return {**{k: v for k, v in config.items() if k not in extra},
            'type': stock}


def is_ours(cls: type) -> bool:
    return cls.__module__.split('.')[0] == OURS


def defaults(cls: Optional[type]) -> Dict[str, Any]:
    """Default arguments that our classes set, a subclass before its parent."""
    found = {}
    for each in reversed(cls.__mro__ if cls else ()):
        if is_ours(each) and '__init__' in vars(each):
            found.update({
                p.name: p.default
                for p in inspect.signature(each.__init__).parameters.values()
                if p.default is not p.empty})
    return found


def arguments(cls: Optional[type]) -> Set[str]:
    """Names that a class accepts, those that it hands to its parent too."""
    found = set()
    for each in cls.__mro__ if cls else ():
        if '__init__' not in vars(each):
            continue
        parameters = inspect.signature(each.__init__).parameters.values()
        found |= {p.name for p in parameters}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


# --- Where more than the class differs ---------------------------------------


def unchanged(config: dict, key: str, shape: Shape) -> dict:
    return config


def mine_pixels(config: dict, key: str, shape: Shape) -> dict:
    """OHEM: a loss with us, a sampler and plain cross entropy in stock."""
    loss = config.get('loss_decode')
    if not isinstance(loss, dict) or loss.get('type') != 'OhemCELoss':
        return config
    loss = {**defaults(MODELS.get('OhemCELoss')), **loss}
    kept = loss['min_kept']  # of the batch
    kept = int(kept * shape.pixels) if isinstance(kept, float) else (
        kept // shape.batch)
    plain = {name: loss[name] for name in ('class_weight', 'loss_weight')}
    return {
        **config,
        'loss_decode': dict(type='CrossEntropyLoss', **plain),
        'sampler': dict(type=OHEMPixelSampler, thresh=loss['thresh'],
                        min_kept=max(kept, 2)),  # of an image; it takes no 1
    }


def detail_of_two_classes(config: dict, key: str, shape: Shape) -> dict:
    """The losses as MMSegmentation's configs of STDC have them."""
    loss = config['loss_decode']
    if loss.get('type') != 'DetailAggregateLoss':
        raise InputError(f'{key}.loss_decode.type {loss.get("type")} has no '
                         'counterpart in MMSegmentation')
    loss = {**defaults(MODELS.get('DetailAggregateLoss')), **loss}
    weight = loss['loss_weight']
    return {
        **config, 'num_classes': 2,
        'loss_decode': [
            dict(type='CrossEntropyLoss', use_sigmoid=True,
                 loss_weight=weight * loss['bce_weight']),
            dict(type='DiceLoss', loss_weight=weight * loss['dice_weight']),
        ]
    }


def presence_by_cross_entropy(config: dict, key: str, shape: Shape) -> dict:
    return {**config, 'use_sigmoid': True}


def hand_down_norm(config: dict, key: str, shape: Shape) -> dict:
    """Ours gives its norm to the parts that set none themselves."""
    return {**config, **{
        each: {'norm_cfg': config['norm_cfg'], **config[each]}
        for each in ('backbone_cfg', 'ffm_cfg')}}


RULES: Dict[str, Callable[[dict, str, Shape], dict]] = dict(
    EncHead=mine_pixels, SegHead=mine_pixels, FCNHead=mine_pixels,
    DetailHead=detail_of_two_classes, STDCContextPathNet=hand_down_norm,
    SemanticEncodingLoss=presence_by_cross_entropy)


# --- Building ----------------------------------------------------------------


def build(config: dict) -> nn.Module:
    """A model or a part, of a config whose types are names or classes."""
    init_default_scope('mmseg')
    return MODELS.build(config)


def check_is_stock(model: nn.Module) -> None:
    """Raise RuntimeError if a module or a sampler of ``model`` is ours."""
    parts = list(model.named_modules())
    parts += [(f'{name}.sampler', module.sampler) for name, module in parts
              if getattr(module, 'sampler', None) is not None]
    for name, each in parts:
        if is_ours(type(each)):
            raise RuntimeError(f'{name or "the model"} is a '
                               f'{type(each).__name__} of {OURS}: the network '
                               'is not of stock parts')
