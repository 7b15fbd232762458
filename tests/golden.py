"""The authors' outputs in tests/data, and the weights behind them."""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

DATA = Path(__file__).parent / 'data'
CONFIGS = Path(__file__).parents[1] / 'configs'
sys.path.insert(0, str(DATA))

import fill  # noqa: E402

# Variant -> the experiment that is the same network.
ENCNET = {
    'resnet50s': 'encnet_r50s_ade.py',
    'resnet50s_lateral': 'encnet_r50s_pcontext.py',
    'resnet101s': 'encnet_r101s_ade.py',
}
STDC = {
    'STDCNet813': 'stdc1_seg50_cityscapes.py',
    'STDCNet1446': 'stdc2_seg50_cityscapes.py',
}


def arrays(name):
    """Of a .npz file, by name."""
    with np.load(DATA / f'{name}.npz') as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def keys(name):
    return json.loads((DATA / f'{name}.keys.json').read_text())


def tensor(name, *arguments, **options):
    return torch.from_numpy(fill.normal(name, *arguments, **options))


def encnet_state(variant):
    """A checkpoint's state dict of PyTorch-Encoding.

    Some weights are divided, so that assignments and gamma are not saturated.
    """
    divided = {'bn3.weight': 5, 'encoding.3.scale': 1000,
               'encmodule.fc.0.weight': 10, 'selayer.weight': 10}
    state = {}
    for key, shape in keys(f'encnet_{variant}').items():
        value = torch.from_numpy(fill.weight(key, shape))
        for end, divisor in divided.items():
            if key.endswith(end):
                value = value / divisor
        state[key] = value
    return state


def stdc_state(backbone):
    """A checkpoint's state dict of STDC-Seg; copies share their tensors."""
    made, state = {}, {}
    for key, (name, shape) in keys(f'stdc_seg_{backbone}').items():
        if name not in made:
            made[name] = torch.from_numpy(fill.weight(name, shape))
        state[key] = made[name]
    return state


def encnet_config(variant):
    """The experiment of a variant, with the 150 classes of the golden files."""
    cfg = Config.fromfile(CONFIGS / ENCNET[variant])
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.num_classes = 150
    return cfg


def stdc_config(backbone, details=False):
    """The experiment of a backbone; ``details``: with heads at 2 and 4 too."""
    cfg = Config.fromfile(CONFIGS / STDC[backbone])
    if details:
        cfg.model.backbone.detail_strides = (2, 4)
        head = cfg.model.auxiliary_head[2]
        cfg.model.auxiliary_head += [
            {**head, 'in_channels': 32, 'in_index': 4},
            {**head, 'in_channels': 64, 'in_index': 5},
        ]
    return cfg


def relative_error(got, expected):
    """Norm of the difference over the norm."""
    got, expected = got.double(), expected.double()
    assert got.shape == expected.shape
    return ((got - expected).norm() / expected.norm()).item()
