"""Convert checkpoints of the authors' STDC-Seg.

A segmentation checkpoint has ``cp.*`` (backbone and context path), ``ffm.*``
and ``conv_out*`` (heads). It holds the backbone's tensors twice, as ``features``
and as ``x2`` ... ``x32``, and the ImageNet classifier. All norms but the
backbone's are in-place activated batch norms, which scale by |weight| + eps.

An ImageNet checkpoint has the backbone's keys alone.
"""
import re
from typing import Dict, Iterator, Optional, Tuple

import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..engine.checkpoints import listed
from ..errors import InputError
from .conversion import Conversion, State, fit, read_authors, rename

__all__ = ['SOURCE', 'convert']

SOURCE = 'STDC-Seg'
EPS = 1e-5  # of the in-place activated batch norm
BACKBONE = 'cp.backbone.'

# Prefix of the authors' keys -> prefix of ours; .weight etc. follows. ``arms`` and
# ``convs`` begin with stride 32.
CONTEXT = {
    'cp.arm32.conv': 'backbone.arms.0.conv_layer',
    'cp.arm16.conv': 'backbone.arms.1.conv_layer',
    'cp.conv_head32': 'backbone.convs.0',
    'cp.conv_head16': 'backbone.convs.1',
    'cp.conv_avg': 'backbone.conv_avg',
    'ffm.convblk': 'backbone.ffm.conv0',
}
PREFIXES = {
    **{f'{theirs}.{layer}': f'{ours}.{layer}'
       for theirs, ours in CONTEXT.items() for layer in ('conv', 'bn')},
    'cp.arm32.conv_atten': 'backbone.arms.0.atten_conv_layer.1.conv',
    'cp.arm32.bn_atten': 'backbone.arms.0.atten_conv_layer.1.bn',
    'cp.arm16.conv_atten': 'backbone.arms.1.atten_conv_layer.1.conv',
    'cp.arm16.bn_atten': 'backbone.arms.1.atten_conv_layer.1.bn',
    'ffm.conv1': 'backbone.ffm.attention.1.conv',
    'ffm.conv2': 'backbone.ffm.attention.2.conv',
}
HEAD = {
    'conv.conv': 'convs.0.conv',
    'conv.bn': 'convs.0.bn',
    'conv_out': 'conv_seg',
}
# Outputs of STDCContextPathNet, in order.
OUTPUTS = ('stride 8', 'context 16', 'context 8', 'fused')
# Feature -> the authors' head on it. They compute conv_out_sp16 and do not use it.
AUXILIARY = {
    'context 8': 'conv_out16',
    'context 16': 'conv_out32',
    'stride 8': 'conv_out_sp8',
    'stride 4': 'conv_out_sp4',
    'stride 2': 'conv_out_sp2',
}
DISCARDED = ('conv_out_sp16', )
CLASSIFIER = ('conv_last', 'fc', 'bn', 'linear')


def convert(path: str, cfg: Config) -> Conversion:
    """Convert a segmentation or an ImageNet checkpoint.

    An ImageNet checkpoint becomes an ``STDCClassifier`` where that is the config's
    model, else the backbone of its context path.

    Args:
        path: the authors' file.
        cfg: an experiment with the same model, or the same backbone.

    Raises:
        InputError: when the file cannot be read or does not fit the config.
    """
    state = read_authors(path)
    if f'{BACKBONE}features.0.conv.weight' in state:
        return convert_segmentation(state, cfg, path)
    if 'features.0.conv.weight' in state:
        return convert_imagenet(state, cfg, path)
    raise InputError(
        f'checkpoint {path} is none of STDC-Seg: it has neither '
        f'{BACKBONE}features.0.conv.weight nor features.0.conv.weight')


def convert_segmentation(state: State, cfg: Config, path: str) -> Conversion:
    """Convert a segmentation checkpoint; see :func:`convert`."""
    model = MODELS.build(cfg.model)
    if not hasattr(model.backbone, 'backbone'):
        raise InputError(f'checkpoint {path} is of a segmentation network; the '
                         "config's backbone must be STDCContextPathNet")
    state = without_copies(state, BACKBONE, path)
    stages = stage_of_feature(model.backbone.backbone)
    heads = dict(heads_of(cfg))

    def name_of(key: str) -> Optional[str]:
        if key.startswith(BACKBONE):
            inner = key[len(BACKBONE):]
            if inner.split('.')[0] in CLASSIFIER:
                return None
            return f'backbone.backbone.{backbone_name(inner, stages)}'
        prefix, leaf = key.rsplit('.', 1)
        if prefix in PREFIXES:
            return f'{PREFIXES[prefix]}.{leaf}'
        head, inner = prefix.split('.', 1)
        if head in DISCARDED or head in AUXILIARY.values() and head not in heads:
            return None
        return f'{heads[head]}.{HEAD[inner]}.{leaf}'

    state = {key: batch_norm_weight(key, value) for key, value in state.items()}
    return fit(rename(state, name_of, path), model, 'the model', path)


def convert_imagenet(state: State, cfg: Config, path: str) -> Conversion:
    """Convert an ImageNet checkpoint; see :func:`convert`."""
    state = without_copies(state, '', path)
    classifier = cfg.model.type == 'STDCClassifier'
    if classifier:
        target, prefix = MODELS.build(cfg.model), 'backbone.'
        backbone, part = target.backbone, 'the model'
    else:
        inner = cfg.model.backbone.get('backbone_cfg', cfg.model.backbone)
        backbone = target = MODELS.build(inner)
        prefix, part = '', 'the backbone'
    stages = stage_of_feature(backbone)

    def name_of(key: str) -> Optional[str]:
        first, rest = key.split('.', 1)
        if first == 'conv_last':
            return f'{prefix}final_conv.{rest}' if backbone.with_final_conv else None
        if first in ('fc', 'linear'):
            return key if classifier else None
        if first == 'bn':  # the authors' code does not use it
            return None
        return prefix + backbone_name(key, stages)

    return fit(rename(state, name_of, path), target, part, path)


def without_copies(state: State, prefix: str, path: str) -> State:
    """Drop ``x2`` ... ``x32``, whose module i is a copy of ``features.i``.

    Raises:
        InputError: listing the copies that differ.
    """
    copy = re.compile(re.escape(prefix) + r'x(?:2|4|8|16|32)\.0\.(\d+\..+)')
    kept, differing = {}, []
    for key, value in state.items():
        found = copy.fullmatch(key)
        if not found:
            kept[key] = value
        elif not torch.equal(
                value, state.get(f'{prefix}features.{found[1]}', value.new_empty(0))):
            differing.append(key)
    if differing:
        raise InputError(
            f'checkpoint {path} has two versions of the backbone, which must '
            f'be one: {listed(differing)}')
    return kept


def stage_of_feature(backbone: nn.Module) -> Dict[int, str]:
    """Map each index of the authors' ``features`` to our module, ``stages.2.0``."""
    names = []
    for i, stage in enumerate(backbone.stages):
        if i < 2:  # one convolution
            names.append(f'stages.{i}')
        else:
            names += [f'stages.{i}.{j}' for j in range(len(stage))]
    return dict(enumerate(names))


def backbone_name(key: str, stages: Dict[int, str]) -> str:
    """Return our key of an entry ``features.*``.

    Raises:
        KeyError: for any other key.
    """
    found = re.fullmatch(r'features\.(\d+)\.(.+)', key)
    if not found:
        raise KeyError(key)
    stage, rest = stages[int(found[1])], found[2]
    rest = re.sub(r'^conv_list\.', 'layers.', rest)
    rest = re.sub(r'^avd_layer\.0\.', 'downsample.conv.', rest)
    rest = re.sub(r'^avd_layer\.1\.', 'downsample.bn.', rest)
    return f'{stage}.{rest}'


def heads_of(cfg: Config) -> Iterator[Tuple[str, str]]:
    """Yield the authors' name and ours of each head, matched by its feature."""
    yield 'conv_out', 'decode_head'
    strides = cfg.model.backbone.get('detail_strides', ())
    outputs = (*OUTPUTS, *(f'stride {stride}' for stride in strides))
    heads = cfg.model.get('auxiliary_head') or []
    single = isinstance(heads, dict)
    for i, head in enumerate([heads] if single else heads):
        name = 'auxiliary_head' if single else f'auxiliary_head.{i}'
        output = outputs[head.get('in_index', -1)]
        if output in AUXILIARY:
            yield AUXILIARY[output], name


def batch_norm_weight(key: str, value: Tensor) -> Tensor:
    """Return a weight for plain batch norm, from an in-place activated one's."""
    gain = re.search(r'\.(bn|bn_atten)\.weight$', key)
    if gain and not key.startswith(BACKBONE):
        return value.abs() + EPS
    return value
