"""Compare converted networks with outputs of the authors' code."""
import pytest
import torch
import torch.nn.functional as F
from golden import (
    ENCNET,
    STDC,
    arrays,
    encnet_config,
    encnet_state,
    relative_error,
    stdc_config,
    stdc_state,
    tensor,
)
from mmseg.registry import MODELS

from mmseg_encstdc.convert import pytorch_encoding, stdc_seg

TOLERANCE = 1e-5


def converted(converter, state, cfg, tmp_path):
    """Return the config's model with the converted weights, in evaluation mode."""
    torch.save(state, tmp_path / 'authors.pth')
    found = converter.convert(str(tmp_path / 'authors.pth'), cfg)
    model = MODELS.build(cfg.model)
    model.load_state_dict(found.state, strict=True)
    return model.eval()


def upsampled(logits, image):
    return F.interpolate(
        logits, image.shape[2:], mode='bilinear', align_corners=True)


@pytest.mark.parametrize('variant', ENCNET)
@torch.no_grad()
def test_converted_encnet_equals_authors(variant, tmp_path):
    expected = {name.split('.')[1]: value for name, value in
                arrays('encnet').items() if name.startswith(f'{variant}.')}
    model = converted(pytorch_encoding, encnet_state(variant),
                         encnet_config(variant), tmp_path)
    image = tensor('image', (1, 3, 96, 128))
    features = model.backbone(image)
    logits, presence = model.decode_head(features)
    got = dict(
        out=upsampled(logits, image)[..., ::8, ::8], se=presence,
        aux=upsampled(model.auxiliary_head(features), image)[..., ::8, ::8],
        c4=features[3][:, ::32, ::2, ::2])
    assert got.keys() == expected.keys()
    for name, value in got.items():
        assert relative_error(value, expected[name]) < TOLERANCE, name


@pytest.mark.parametrize('backbone', STDC)
@torch.no_grad()
def test_converted_stdc_equals_authors(backbone, tmp_path):
    expected = {name.split('.', 1)[1]: value for name, value in
                arrays('stdc_seg').items() if name.startswith(f'{backbone}.')}
    cfg = stdc_config(backbone, details=True)
    model = converted(stdc_seg, stdc_state(backbone), cfg, tmp_path)
    image = tensor('image', (1, 3, 128, 256))
    maps = dict(zip((8, 16, 32, 2, 4), model.backbone.backbone(image)))
    features = model.backbone(image)
    context8, context16, detail8, detail2, detail4 = (
        head(features) for head in model.auxiliary_head)
    got = dict(
        out=upsampled(model.decode_head(features), image)[..., ::8, ::8],
        out16=upsampled(context8, image)[..., ::8, ::8],
        out32=upsampled(context16, image)[..., ::8, ::8],
        detail2=detail2[..., ::2, ::2], detail4=detail4[..., ::2, ::2],
        detail8=detail8[..., ::2, ::2])
    for stride, value in maps.items():
        step = slice(None, None, 2 if stride < 16 else None)
        got[f'backbone.{stride}'] = value[:, ::8, step, step]
    assert got.keys() == expected.keys()
    for name, value in got.items():
        assert relative_error(value, expected[name]) < TOLERANCE, name
