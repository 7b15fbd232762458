"""Convert checkpoints of PyTorch-Encoding, the EncNet authors' code.

A segmentation checkpoint has ``pretrained.*`` (the backbone), ``head.*`` and
``auxlayer.*``. An ImageNet checkpoint has the backbone's keys and ``fc.*``.
"""
import re
from typing import Optional

from mmengine.config import Config
from mmseg.registry import MODELS

from ..errors import InputError
from .conversion import Conversion, fit, read_authors, rename

__all__ = ['SOURCE', 'convert']

SOURCE = 'PyTorch-Encoding'

# Prefix of the authors' keys -> prefix of ours; .weight etc. follows.
HEAD = {
    'head.conv5.0': 'bottleneck.conv',
    'head.conv5.1': 'bottleneck.bn',
    'head.connect.0.0': 'lateral_convs.0.conv',
    'head.connect.0.1': 'lateral_convs.0.bn',
    'head.connect.1.0': 'lateral_convs.1.conv',
    'head.connect.1.1': 'lateral_convs.1.bn',
    'head.fusion.0': 'fusion.conv',
    'head.fusion.1': 'fusion.bn',
    'head.encmodule.encoding.0': 'enc_module.encoding_project.conv',
    'head.encmodule.encoding.1': 'enc_module.encoding_project.bn',
    'head.encmodule.encoding.3': 'enc_module.encoding.0',
    'head.encmodule.encoding.4': 'enc_module.encoding.1',
    'head.encmodule.fc.0': 'enc_module.fc.0',
    'head.encmodule.selayer': 'se_layer',
    'head.conv6.1': 'conv_seg',
}
AUXILIARY = {
    'auxlayer.conv5.0': 'convs.0.conv',
    'auxlayer.conv5.1': 'convs.0.bn',
    'auxlayer.conv5.4': 'conv_seg',
}
PREFIXES = {
    **{theirs: f'decode_head.{ours}' for theirs, ours in HEAD.items()},
    **{theirs: f'auxiliary_head.{ours}' for theirs, ours in AUXILIARY.items()},
}


def convert(path: str, cfg: Config) -> Conversion:
    """Convert a segmentation checkpoint to a model, an ImageNet one to a backbone.

    Args:
        path: the authors' file.
        cfg: an experiment with the same model, or the same backbone.

    Raises:
        InputError: when the file cannot be read or does not fit the config.
    """
    state = read_authors(path)
    trained = any(key.startswith('pretrained.') for key in state)
    if not trained and 'layer1.0.conv1.weight' not in state:
        raise InputError(
            f'checkpoint {path} is none of PyTorch-Encoding: it has neither '
            'pretrained.* nor layer1.0.conv1.weight')
    has_auxiliary = bool(cfg.model.get('auxiliary_head'))

    def name_of(key: str) -> Optional[str]:
        if not trained:
            return backbone_name(key)
        if key.startswith('pretrained.'):
            name = backbone_name(key[len('pretrained.'):])
            return name and f'backbone.{name}'
        if key.startswith('auxlayer.') and not has_auxiliary:
            return None
        prefix, leaf = key.rsplit('.', 1)
        return f'{PREFIXES[prefix]}.{leaf}'

    found = rename(state, name_of, path)
    if trained:
        return fit(found, MODELS.build(cfg.model), 'the model', path)
    return fit(found, MODELS.build(cfg.model.backbone), 'the backbone', path)


def backbone_name(key: str) -> Optional[str]:
    """Return MMSegmentation's key of a ResNet's entry; None for the classifier.

    The authors' ``conv1`` and ``bn1`` are ``stem`` here, which holds three
    convolutions, each with its norm.

    Raises:
        KeyError: for any other key.
    """
    if key.startswith('fc.'):
        return None
    if re.match(r'layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01])\.', key):
        return key
    if re.match(r'conv1\.[01346]\.', key):
        return 'stem' + key[len('conv1'):]
    if key.startswith('bn1.'):
        return 'stem.7' + key[len('bn1'):]
    raise KeyError(key)
