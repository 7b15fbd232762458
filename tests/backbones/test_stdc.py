"""STDCNet and STDCContextPathNet match MMSegmentation's; their own arguments."""
import pytest
import torch
from comparisons import assert_same, assert_same_state, perturb
from mmseg.models.backbones.stdc import STDCContextPathNet as StockContextPath
from mmseg.models.backbones.stdc import STDCNet as StockSTDCNet
from mmseg.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_encstdc.backbones import STDCContextPathNet, STDCNet

SINGLE, DOUBLE = torch.float32, torch.float64
# Largest error over the largest value. Gradients are compared in double
# precision, where no value near 0 falls on the other side of a ReLU.
TOLERANCE = {SINGLE: 1e-5, DOUBLE: 1e-9}
NARROW = (8, 12, 16, 24, 32)
BN = dict(type='BN')
VARIANTS = {
    'STDC1, cat': dict(),
    'STDC1, add': dict(bottleneck_type='add'),
    'STDC2, cat': dict(stdc_type='STDCNet2'),
    'STDC2, add': dict(stdc_type='STDCNet2', bottleneck_type='add'),
    'final conv': dict(with_final_conv=True),
    'two convs a block': dict(num_convs=2),
    'leaky': dict(act_cfg=dict(type='LeakyReLU')),
    'no norm': dict(norm_cfg=None),
}


def backbone_config(**kwargs):
    """Return every argument that the stock class requires."""
    return {
        **dict(
            stdc_type='STDCNet1', in_channels=3, channels=NARROW,
            bottleneck_type='cat', norm_cfg=BN, act_cfg=dict(type='ReLU')),
        **kwargs
    }


def context_config(backbone=STDCNet, **kwargs):
    return {
        **dict(
            backbone_cfg=backbone_config(type=backbone),
            last_in_channels=NARROW[:2:-1], out_channels=8,
            ffm_cfg=dict(in_channels=24, out_channels=16, scale_factor=4)),
        **kwargs
    }


def copy_state(stock, ours, dtype=DOUBLE, training=True):
    """Copy the stock network's state dict, strictly, and set the mode."""
    ours.load_state_dict(perturb(stock).state_dict(), strict=True)
    return [each.to(dtype).train(training) for each in (stock, ours)]


def context_twins(dtype=DOUBLE, training=True, **kwargs):
    return copy_state(
        StockContextPath(**context_config(StockSTDCNet, **kwargs)),
        STDCContextPathNet(**context_config(STDCNet, **kwargs)),
        dtype, training)


def backbone_twins(dtype=DOUBLE, training=True, **kwargs):
    config = backbone_config(**kwargs)
    return copy_state(StockSTDCNet(**config), STDCNet(**config), dtype, training)


def images(size=(32, 64), batch=2, dtype=DOUBLE):
    return torch.randn(batch, 3, *size, dtype=dtype)


def run(network, x):
    """Return the outputs, and the gradients of parameters and image."""
    leaf = x.clone().requires_grad_()
    outs = network(leaf)
    make = torch.Generator().manual_seed(1)
    torch.autograd.backward(
        outs, [torch.randn(out.shape, generator=make).to(out) for out in outs])
    grads = {name: p.grad for name, p in network.named_parameters()}
    return outs, {'image': leaf.grad, **grads}


def assert_twins_agree(stock, ours, x):
    """Compare outputs, gradients and, afterwards, running statistics."""
    expected, expected_grads = run(stock, x)
    got, grads = run(ours, x)
    assert len(got) == len(expected)
    for mine, theirs in zip(got, expected):
        assert_same(mine, theirs, TOLERANCE[x.dtype])
    assert grads.keys() == expected_grads.keys()
    for name, grad in expected_grads.items():
        if grad is None:
            assert grads[name] is None, name
        else:
            assert_same(grads[name], grad, TOLERANCE[x.dtype], name)
    assert expected_grads['image'].abs().sum() > 0
    for name, value in stock.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def norms(module):
    return [each for each in module.modules() if isinstance(each, _BatchNorm)]


def test_networks_are_compared_with_the_stock_ones():
    for cls in (StockSTDCNet, StockContextPath):
        assert cls.__module__ == 'mmseg.models.backbones.stdc'
    for cls in (STDCNet, STDCContextPathNet):
        assert cls.__module__ == 'mmseg_encstdc.backbones.stdc'
    stock, ours = context_twins()
    assert type(stock.backbone) is StockSTDCNet
    assert type(ours.backbone) is STDCNet


@pytest.mark.parametrize('scope', ['', 'mmseg.'])
def test_registry_builds_both_networks(scope):
    backbone = backbone_config(type=f'{scope}STDCNet')
    assert type(MODELS.build(backbone)) is STDCNet
    network = MODELS.build(dict(
        type=f'{scope}STDCContextPathNet',
        **context_config(backbone_cfg=backbone)))
    assert type(network) is STDCContextPathNet
    assert type(network.backbone) is STDCNet


# --- STDCNet -----------------------------------------------------------------


@pytest.mark.parametrize('variant', VARIANTS)
def test_stdc_net_state_dict_matches_mmsegmentation(variant):
    config = backbone_config(**VARIANTS[variant])
    assert_same_state(StockSTDCNet(**config), STDCNet(**config))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('variant', VARIANTS)
def test_stdc_net_gradients_match_mmsegmentation(variant, training):
    stock, ours = backbone_twins(training=training, **VARIANTS[variant])
    assert_twins_agree(stock, ours, images())


@pytest.mark.parametrize('size', [(65, 97), (33, 32), (70, 45)])
def test_stdc_net_of_odd_sizes_matches_mmsegmentation(size):
    stock, ours = backbone_twins()
    assert_twins_agree(stock, ours, images(size))
    shapes = [tuple(out.shape[2:]) for out in ours(images(size))]
    assert shapes == [
        tuple(-(-side // stride) for side in size) for stride in (8, 16, 32)]


def test_stdc_net_in_float32_matches_mmsegmentation():
    stock, ours = backbone_twins(SINGLE)
    assert_twins_agree(stock, ours, images((65, 97), dtype=SINGLE))


def test_stdc_net_final_conv_has_at_least_1024_channels():
    ours = STDCNet(**backbone_config(with_final_conv=True)).eval()
    with torch.no_grad():
        maps = ours(images(dtype=SINGLE))
    assert [each.size(1) for each in maps] == [16, 24, 1024]


def test_stdc_net_requires_stdc_type_only():
    ours = STDCNet('STDCNet1')
    stock = StockSTDCNet(**backbone_config(channels=(32, 64, 256, 512, 1024)))
    assert_same_state(stock, ours)


@pytest.mark.parametrize('strides', [
    (8, 16, 32), (2, 4, 8, 16, 32), (32, ), (4, 2), (32, 8, 2)])
def test_stdc_net_out_strides_select_maps_in_order(strides):
    ours = STDCNet(**backbone_config(), out_strides=strides).eval()
    x = images(dtype=SINGLE)
    maps, by_stride, channels = ours(x), {}, dict(zip((2, 4, 8, 16, 32), NARROW))
    for stride, stage in zip(channels, ours.stages):
        by_stride[stride] = x = stage(x)
    assert len(maps) == len(strides)
    for stride, got in zip(strides, maps):
        assert got.shape == (2, channels[stride], 32 // stride, 64 // stride)
        assert torch.equal(got, by_stride[stride])


def test_stdc_net_out_strides_keep_state_dict():
    assert_same_state(
        StockSTDCNet(**backbone_config()),
        STDCNet(**backbone_config(), out_strides=(2, 32)))


@pytest.mark.parametrize('invalid, message', [
    (dict(stdc_type='STDCNet3'), "stdc_type.*STDCNet1.*got 'STDCNet3'"),
    (dict(stdc_type='STDCNet813'), "stdc_type.*got 'STDCNet813'"),
    (dict(bottleneck_type='sum'), "bottleneck_type.*'add' or 'cat'.*'sum'"),
    (dict(channels=(8, 16, 32, 64)), r'channels.*5 stages.*\(8, 16, 32, 64\)'),
    (dict(channels=()), 'channels.*5 stages'),
    (dict(out_strides=(1, 2)), r'out_strides.*\(2, 4, 8, 16, 32\).*\(1, 2\)'),
    (dict(out_strides=(8, 8)), r'out_strides must be distinct.*\(8, 8\)'),
])
def test_stdc_net_rejects_invalid_arguments(invalid, message):
    with pytest.raises(ValueError, match=message):
        STDCNet(**backbone_config(**invalid))


# --- STDCContextPathNet ------------------------------------------------------

CONTEXT_VARIANTS = {
    **{
        name: dict(backbone_cfg=options)
        for name, options in VARIANTS.items()
        if name not in ('final conv', 'no norm')
    },
    'final conv': dict(
        backbone_cfg=dict(with_final_conv=True), last_in_channels=(1024, 24)),
    'bilinear': dict(upsample_mode='bilinear', align_corners=True),
    'bilinear, not aligned': dict(upsample_mode='bilinear', align_corners=False),
    'a norm of its own in the fusion': dict(
        ffm_cfg=dict(
            in_channels=24, out_channels=16, scale_factor=2,
            norm_cfg=dict(type='BN', eps=0.1))),
}


def variant_twins(name, **kwargs):
    """Return the stock network and ours, each on its own backbone."""
    options = dict(CONTEXT_VARIANTS[name])
    changed = options.pop('backbone_cfg', {})
    return copy_state(
        *(network(**context_config(
            backbone_cfg=backbone_config(type=backbone, **changed), **options))
          for network, backbone in ((StockContextPath, StockSTDCNet),
                                    (STDCContextPathNet, STDCNet))),
        **kwargs)


@pytest.mark.parametrize('variant', CONTEXT_VARIANTS)
def test_context_path_state_dict_matches_mmsegmentation(variant):
    assert_same_state(*variant_twins(variant))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('variant', CONTEXT_VARIANTS)
def test_context_path_gradients_match_mmsegmentation(
        variant, training):
    stock, ours = variant_twins(variant, training=training)
    assert_twins_agree(stock, ours, images())


@pytest.mark.parametrize('size', [(65, 97), (33, 32), (70, 45)])
def test_context_path_of_odd_sizes_matches_mmsegmentation(size):
    stock, ours = context_twins()
    assert_twins_agree(stock, ours, images(size))


def test_context_path_in_float32_matches_mmsegmentation():
    wide = (32, 64, 256, 512, 1024)
    fusion = dict(in_channels=384, out_channels=256, scale_factor=4)
    stock, ours = copy_state(
        StockContextPath(
            backbone_config(type=StockSTDCNet, channels=wide), ffm_cfg=fusion),
        STDCContextPathNet(
            dict(type='STDCNet', stdc_type='STDCNet1'), ffm_cfg=fusion),
        SINGLE)
    assert_twins_agree(stock, ours, images((65, 97), dtype=SINGLE))


def test_context_path_output_shapes():
    _, ours = context_twins()
    shapes = [tuple(out.shape) for out in ours(images((64, 96)))]
    assert shapes == [
        (2, 16, 8, 12), (2, 8, 4, 6), (2, 8, 8, 12), (2, 16, 8, 12)]


@pytest.mark.parametrize('strides', [(2, ), (4, ), (2, 4), (4, 2)])
def test_context_path_detail_strides_append_backbone_maps(strides):
    _, plain = context_twins(training=False)
    ours = STDCContextPathNet(**context_config(detail_strides=strides)).double()
    ours.load_state_dict(plain.state_dict(), strict=True)
    x = images()
    maps, expected = ours.eval()(x), plain(x)
    assert len(maps) == 4 + len(strides)
    for got, want in zip(maps, expected):
        assert torch.equal(got, want)
    stem = plain.backbone.stages[0](x)
    shallow = {2: stem, 4: plain.backbone.stages[1](stem)}
    for stride, got in zip(strides, maps[4:]):
        assert torch.equal(got, shallow[stride])


@pytest.mark.parametrize('strides', [(8, ), (1, 2), (2, 2), (2, 4, 4)])
def test_context_path_rejects_other_detail_strides(strides):
    with pytest.raises(ValueError, match=r'detail_strides.*distinct.*\(2, 4\)'):
        STDCContextPathNet(**context_config(detail_strides=strides))


def test_context_path_rejects_invalid_backbone_cfg():
    with pytest.raises(ValueError, match="bottleneck_type.*'sum'"):
        STDCContextPathNet(**context_config(
            backbone_cfg=backbone_config(type='STDCNet', bottleneck_type='sum')))


# --- Norms -------------------------------------------------------------------


def without_norm(**kwargs):
    """Return a backbone config without norm_cfg."""
    config = backbone_config(type='STDCNet', **kwargs)
    del config['norm_cfg']
    return config


@pytest.mark.parametrize('bottleneck_type', ['cat', 'add'])
def test_context_path_norm_cfg_reaches_every_norm(bottleneck_type):
    network = STDCContextPathNet(**context_config(
        backbone_cfg=without_norm(
            bottleneck_type=bottleneck_type, with_final_conv=True),
        last_in_channels=(1024, 24), norm_cfg=dict(type='SyncBN', eps=0.5)))
    everywhere = norms(network)
    assert len(everywhere) == len(norms(STDCContextPathNet(**context_config(
        backbone_cfg=without_norm(
            bottleneck_type=bottleneck_type, with_final_conv=True),
        last_in_channels=(1024, 24)))))
    for part in (network.backbone, network.arms, network.convs,
                 network.conv_avg, network.ffm):
        assert norms(part)
    for norm in everywhere:
        assert isinstance(norm, nn.SyncBatchNorm)
        assert not isinstance(norm, nn.BatchNorm2d)
        assert norm.eps == 0.5


def test_context_path_default_norm_is_batch_norm():
    network = STDCContextPathNet(**context_config(backbone_cfg=without_norm()))
    assert {type(norm) for norm in norms(network)} == {nn.BatchNorm2d}


def test_context_path_backbone_cfg_can_set_its_norm():
    frozen = dict(type='BN', requires_grad=False)
    network = STDCContextPathNet(**context_config(
        backbone_cfg=backbone_config(type='STDCNet', norm_cfg=frozen)))
    inside = norms(network.backbone)
    outside = [norm for norm in norms(network) if norm not in inside]
    assert inside and outside
    for norm in inside:
        assert not (norm.weight.requires_grad or norm.bias.requires_grad)
    for norm in outside:
        assert norm.weight.requires_grad and norm.bias.requires_grad


def test_context_path_ffm_cfg_can_set_its_norm():
    network = STDCContextPathNet(**context_config(
        ffm_cfg=dict(
            in_channels=24, out_channels=16,
            norm_cfg=dict(type='SyncBN', eps=0.25))))
    assert all(norm.eps == 0.25 for norm in norms(network.ffm))
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms(network.ffm))
    assert all(type(norm) is nn.BatchNorm2d for norm in norms(network.arms))


def test_context_path_keeps_its_configs():
    config = context_config(
        backbone_cfg=without_norm(), detail_strides=(2, ))
    backbone, fusion = config['backbone_cfg'], config['ffm_cfg']
    before = dict(backbone), dict(fusion)
    STDCContextPathNet(**config)
    assert (backbone, fusion) == before


# --- A batch of one ----------------------------------------------------------


@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
def test_context_path_rejects_training_on_batch_of_1(norm):
    network = STDCContextPathNet(**context_config(norm_cfg=dict(type=norm)))
    with pytest.raises(ValueError, match='batch of 1.*batch_size to 2 or more'):
        network(images(batch=1, dtype=SINGLE))


def test_context_path_rejecting_batch_of_1_keeps_statistics():
    network = STDCContextPathNet(**context_config())
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match='batch of 1'):
        network(images(batch=1, dtype=SINGLE))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_context_path_evaluates_batch_of_1():
    _, ours = context_twins(training=False)
    x = images()
    for alone, together in zip(ours(x[:1]), ours(x)):
        assert_same(alone, together[:1], 1e-9)


def test_context_path_trains_on_batch_of_1_without_batch_norm():
    for norm in (None, dict(type='GN', num_groups=1)):
        network = STDCContextPathNet(**context_config(
            backbone_cfg=without_norm(), norm_cfg=norm))
        run(network, images(batch=1, dtype=SINGLE))
        assert network.conv_avg.conv.weight.grad.isfinite().all()


def test_context_path_trains_on_batch_of_1_with_frozen_norms():
    _, ours = context_twins()
    for norm in norms(ours):
        norm.eval()
    _, grads = run(ours, images(batch=1))
    assert grads['conv_avg.conv.weight'].abs().sum() > 0
