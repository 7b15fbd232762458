"""Encoding, ContextEncoding and build_dropout."""
import pytest
import torch
from comparisons import assert_same, perturb
from mmseg.models.decode_heads.enc_head import EncModule
from mmseg.models.utils import Encoding as StockEncoding
from mmseg.registry import MODELS
from torch import nn

from mmseg_encstdc.layers import ContextEncoding, Encoding, build_dropout
from mmseg_encstdc.ops import encode_reference

NORMS = {
    'no norm': None,
    'BN': dict(type='BN'),
    'BN2d': dict(type='BN2d'),
    'SyncBN': dict(type='SyncBN'),
    'IN': dict(type='IN'),
    'frozen BN': dict(type='BN', requires_grad=False),
}
RELU = dict(type='ReLU')


def stock_module(norm_cfg, channels=12, codes=5, act_cfg=RELU) -> nn.Module:
    return EncModule(
        channels, codes, conv_cfg=None, norm_cfg=norm_cfg, act_cfg=act_cfg)


# --- Encoding ----------------------------------------------------------------


@pytest.mark.parametrize('shape', [(2, 6, 20), (2, 6, 4, 5)])
def test_encoding_takes_channels_second(shape):
    layer = Encoding(6, 3)
    x = torch.randn(shape)
    expected = encode_reference(x, layer.codewords, layer.scale)
    out = layer(x)
    assert out.shape == (2, 3, 6)
    assert_same(out, expected, 1e-5)


def test_encoding_matches_mmsegmentation():
    assert StockEncoding.__module__ == 'mmseg.models.utils.encoding'
    stock, ours = StockEncoding(6, 3), Encoding(6, 3)
    ours.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(2, 6, 4, 5)
    assert_same(ours(x), stock(x), 1e-5)


@pytest.mark.parametrize('shape', [(6, ), (2, 6), (1, 6, 2, 2, 2)])
def test_encoding_rejects_wrong_rank(shape):
    with pytest.raises(RuntimeError, match=r'\(B, D, N\) or \(B, D, H, W\)'):
        Encoding(6, 3)(torch.zeros(shape))


@pytest.mark.parametrize('shape', [(2, 20, 6), (2, 5, 4, 4)])
def test_encoding_rejects_wrong_channels(shape):
    with pytest.raises(ValueError) as raised:
        Encoding(6, 3)(torch.zeros(shape))
    assert f'x {shape} has {shape[1]} channels' in str(raised.value)
    assert 'D = channels = 6' in str(raised.value)


@pytest.mark.parametrize('channels, codes, kind, says', [
    (0, 3, ValueError, 'channels must be at least 1, got 0'),
    (6, -1, ValueError, 'num_codes must be 1 to 256, got -1'),
    (6, 257, ValueError, 'num_codes must be 1 to 256, got 257'),
    (6, 3.0, TypeError, 'num_codes must be an integer, got 3.0'),
    ('6', 3, TypeError, "channels must be an integer, got '6'"),
    (None, 3, TypeError, 'channels must be an integer, got None'),
])
def test_encoding_rejects_wrong_sizes(channels, codes, kind, says):
    with pytest.raises(kind, match=f'^{says}$'):
        Encoding(channels, codes)


@pytest.mark.parametrize('codes', [1, 256, torch.tensor(4).numpy()[()]])
def test_encoding_accepts_integer_sizes(codes):
    layer = Encoding(6, codes)
    assert type(layer.num_codes) is int
    assert layer(torch.zeros(1, 6, 2)).shape == (1, int(codes), 6)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_encoding_in_half_precision_rejects_float64_features(dtype):
    with pytest.raises(TypeError, match=rf'x is torch.float64 .* {dtype}; give'):
        Encoding(6, 3).to(dtype)(torch.zeros(1, 6, 2, dtype=torch.float64))


def test_encoding_in_float64_accepts_only_float64_features():
    layer = Encoding(6, 3).double()
    x = torch.zeros(1, 6, 2, dtype=torch.float64)
    assert layer(x).dtype == torch.float64
    with pytest.raises(TypeError, match='float64'):
        layer(x.float())


def test_encoding_initial_codewords_are_uniform():
    layer = Encoding(64, 32)
    bound = (32 * 64)**-0.5
    assert layer.codewords.shape == (32, 64)
    assert layer.codewords.abs().max() <= bound
    assert layer.codewords.max() > 0.95 * bound
    assert layer.codewords.min() < -0.95 * bound
    assert layer.codewords.mean().abs() < 0.1 * bound


def test_encoding_initial_scale_is_uniform():
    layer = Encoding(2, 256)
    assert layer.scale.shape == (256, )
    assert -1 <= layer.scale.min() < -0.95
    assert -0.05 < layer.scale.max() <= 0


def test_encoding_gradients_reach_codewords_and_scale():
    layer = Encoding(6, 3)
    layer(torch.randn(2, 6, 4, 5)).square().sum().backward()
    assert dict(layer.named_parameters()).keys() == {'codewords', 'scale'}
    assert layer.codewords.grad.abs().sum() > 0
    assert layer.scale.grad.abs().sum() > 0


def test_encoding_repr_shows_sizes():
    assert repr(Encoding(6, 3)) == 'Encoding(channels=6, num_codes=3)'


# --- ContextEncoding ---------------------------------------------------------


def test_context_encoding_is_compared_with_the_stock_module():
    assert EncModule.__module__ == 'mmseg.models.decode_heads.enc_head'
    assert ContextEncoding.__module__.startswith('mmseg_encstdc.')


@pytest.mark.parametrize('norm', NORMS)
def test_context_encoding_state_dict_matches_mmsegmentation(norm):
    stock = stock_module(NORMS[norm])
    ours = ContextEncoding(12, 5, norm_cfg=NORMS[norm])
    shapes = {k: v.shape for k, v in stock.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == shapes
    ours.load_state_dict(stock.state_dict(), strict=True)
    stock.load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('norm', NORMS)
def test_context_encoding_gradients_match_mmsegmentation(norm, training):
    stock = perturb(stock_module(NORMS[norm])).double().train(training)
    ours = ContextEncoding(12, 5, norm_cfg=NORMS[norm]).double()
    ours.load_state_dict(stock.state_dict(), strict=True)
    ours.train(training)
    x = torch.randn(3, 12, 5, 7, dtype=torch.float64)
    probes = torch.randn(3, 12).double(), torch.randn(3, 12, 5, 7).double()
    inputs = []
    for module in (stock, ours):
        leaf = x.clone().requires_grad_()
        outs = module(leaf)
        torch.autograd.backward(outs, probes)
        inputs.append((outs, leaf.grad))
    (expected, expected_grad), (got, got_grad) = inputs
    for mine, theirs in zip((*got, got_grad), (*expected, expected_grad)):
        assert mine.shape == theirs.shape
        assert_same(mine, theirs, 1e-9)
    mine, theirs = dict(ours.named_parameters()), dict(stock.named_parameters())
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert mine[name].requires_grad == value.requires_grad, name
        if value.requires_grad:
            assert_same(mine[name].grad, value.grad, 1e-9)
    for name, value in stock.state_dict().items():  # running statistics
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_context_encoding_float32_outputs_match_mmsegmentation():
    stock = perturb(stock_module(dict(type='BN'))).eval()
    ours = ContextEncoding(12, 5, norm_cfg=dict(type='BN')).eval()
    ours.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(3, 12, 5, 7)
    for got, expected in zip(ours(x), stock(x)):
        assert_same(got, expected, 1e-5)


@pytest.mark.parametrize('norm, expected', [
    (None, nn.BatchNorm1d),
    (dict(type='BN'), nn.BatchNorm1d),
    (dict(type='BN2d'), nn.BatchNorm1d),
    (dict(type='SyncBN'), nn.SyncBatchNorm),
    (dict(type='IN'), nn.InstanceNorm1d),
    (dict(type='IN2d'), nn.InstanceNorm1d),
])
def test_context_encoding_norm_over_codewords_is_1d(norm, expected):
    module = ContextEncoding(12, 5, norm_cfg=norm)
    assert isinstance(module.encoding[1], expected)
    assert module.encoding[1].num_features == 5


def test_context_encoding_without_norm_cfg_has_no_projection_norm():
    module = ContextEncoding(12, 5)
    assert not module.encoding_project.with_norm
    assert module.encoding_project.conv.bias is not None


def test_context_encoding_norm_cfg_reaches_both_norms():
    norm = dict(type='BN', eps=0.5, requires_grad=False)
    module = ContextEncoding(12, 5, norm_cfg=norm)
    for layer in (module.encoding_project.norm, module.encoding[1]):
        assert layer.eps == 0.5
        assert not layer.weight.requires_grad
    assert norm == dict(type='BN', eps=0.5, requires_grad=False)


def test_context_encoding_act_cfg_reaches_projection():
    module = ContextEncoding(12, 5, act_cfg=dict(type='LeakyReLU'))
    assert isinstance(module.encoding_project.activate, nn.LeakyReLU)


def test_context_encoding_defaults_are_32_codewords_and_the_mean():
    module = ContextEncoding(12)
    assert module.encoding[0].num_codes == 32
    assert module.reduction == 'mean'


def semantics_of(reduction):
    torch.manual_seed(3)
    module = ContextEncoding(12, 5, reduction=reduction).eval()
    return module(torch.randn(2, 12, 4, 4))[0]


def test_context_encoding_sum_is_num_codes_times_mean():
    assert_same(semantics_of('sum'), 5 * semantics_of('mean'), 1e-6)
    assert semantics_of('mean').abs().sum() > 0


def test_context_encoding_reduction_changes_attention():
    maps = {}
    for reduction in ('mean', 'sum'):
        torch.manual_seed(3)
        module = ContextEncoding(12, 5, reduction=reduction).eval()
        x = torch.randn(2, 12, 4, 4)
        semantics, maps[reduction] = module(x)
        gamma = module.fc(semantics)[:, :, None, None]
        assert_same(maps[reduction], (x * (1 + gamma)).relu(), 1e-6)
    assert not torch.allclose(maps['mean'], maps['sum'])


@pytest.mark.parametrize('reduction', ['max', '', 'Mean', None])
def test_context_encoding_rejects_unknown_reduction(reduction):
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum'"):
        ContextEncoding(12, 5, reduction=reduction)


def test_context_encoding_does_not_modify_its_input():
    x = torch.randn(2, 12, 4, 4)
    before = x.clone()
    ContextEncoding(12, 5)(x)
    assert torch.equal(x, before)


# --- Registry and dropout ----------------------------------------------------


def test_registry_builds_both_layers():
    encoding = MODELS.build(dict(type='Encoding', channels=6, num_codes=3))
    module = MODELS.build(
        dict(type='ContextEncoding', in_channels=6, num_codes=3))
    assert type(encoding) is Encoding
    assert type(module) is ContextEncoding
    assert encoding(torch.randn(2, 6, 9)).shape == (2, 3, 6)
    semantics, out = module(torch.randn(2, 6, 3, 3))
    assert semantics.shape == (2, 6)
    assert out.shape == (2, 6, 3, 3)


def test_build_dropout_drops_elements_or_channels():
    x = torch.ones(4, 16, 8, 8)
    elements = build_dropout('Dropout', 0.5)(x).flatten(2)
    channels = build_dropout('Dropout2d', 0.5)(x).flatten(2)
    mixed = elements.amin(2) != elements.amax(2)
    assert mixed.any()
    assert torch.equal(channels.amin(2), channels.amax(2))
    assert set(channels.unique().tolist()) == {0., 2.}


@pytest.mark.parametrize('kind', ['Dropout', 'Dropout2d'])
def test_build_dropout_of_ratio_zero_is_none(kind):
    assert build_dropout(kind, 0.) is None


@pytest.mark.parametrize('ratio', [0., 0.1])
def test_build_dropout_rejects_unknown_type(ratio):
    with pytest.raises(ValueError, match='dropout_type.*Dropout2d.*Dropout3d'):
        build_dropout('Dropout3d', ratio)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_encoding_in_half_precision_computes_in_float32(dtype):
    layer = Encoding(6, 3)
    x = torch.randn(2, 6, 4, 5).to(dtype)
    rounded = Encoding(6, 3)
    rounded.load_state_dict(layer.to(dtype).float().state_dict())
    expected = rounded(x.float()).to(dtype)
    assert torch.equal(layer.to(dtype)(x), expected)
