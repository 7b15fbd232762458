"""EncHead matches MMSegmentation's; its own arguments."""
import pytest
import torch
from comparisons import assert_same, assert_same_state, perturb, samples
from mmseg.models.decode_heads.enc_head import EncHead as StockEncHead
from mmseg.registry import MODELS
from torch import nn

from mmseg_encstdc.heads import EncHead
from mmseg_encstdc.layers import ContextEncoding
from mmseg_encstdc.losses import SemanticEncodingLoss

IGNORE = 255
CLASSES = 7
SINGLE, DOUBLE = torch.float32, torch.float64
# Largest error over the largest value. Gradients are compared in double
# precision, where no value near 0 falls on the other side of a ReLU.
TOLERANCE = {SINGLE: 1e-5, DOUBLE: 1e-9}


def head(cls, **kwargs):
    return cls(**{
        **dict(
            in_channels=(8, 12, 16), in_index=(1, 2, 3), channels=12,
            num_codes=5, num_classes=CLASSES, norm_cfg=dict(type='BN')),
        **kwargs
    })


def twins(dtype=DOUBLE, training=True, **kwargs):
    """Return MMSegmentation's head and ours with the same parameters."""
    stock, ours = perturb(head(StockEncHead, **kwargs)), head(EncHead, **kwargs)
    ours.load_state_dict(stock.state_dict(), strict=True)
    return [each.to(dtype).train(training) for each in (stock, ours)]


def features(dtype=DOUBLE, batch=3):
    """Draw maps of a backbone with output stride 8."""
    return [
        torch.randn(batch, channels, *size, dtype=dtype)
        for channels, size in zip(
            (4, 8, 12, 16), ((20, 28), (10, 14), (5, 7), (5, 7)))
    ]


def label_maps(batch=3, size=(20, 28)):
    labels = torch.randint(0, CLASSES - 1, (batch, 1, *size))
    labels[0, 0, :4] = IGNORE
    labels[1] = 2
    return labels


def run(module, maps, labels):
    """Return losses and gradients, from the same random state each time."""
    torch.manual_seed(11)
    leaves = [each.clone().requires_grad_() for each in maps]
    losses = module.loss(leaves, samples(labels), {})
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    grads = {name: p.grad for name, p in module.named_parameters()}
    grads.update({f'input {i}': leaf.grad for i, leaf in enumerate(leaves)})
    return losses, grads


def test_enc_head_is_compared_with_the_stock_head():
    assert StockEncHead.__module__ == 'mmseg.models.decode_heads.enc_head'
    assert EncHead.__module__ == 'mmseg_encstdc.heads.enc_head'
    stock, ours = twins()
    assert type(stock.enc_module).__module__ == StockEncHead.__module__
    assert type(ours.enc_module) is ContextEncoding


def test_registry_builds_enc_head():
    config = dict(
        type='EncHead', in_channels=(8, 16), in_index=(0, 1), channels=12,
        num_classes=CLASSES)
    assert type(MODELS.build(config)) is EncHead
    assert type(MODELS.build({**config, 'type': 'mmseg.EncHead'})) is EncHead


@pytest.mark.parametrize('use_se_loss', [True, False])
@pytest.mark.parametrize('add_lateral', [True, False])
@pytest.mark.parametrize('norm', [dict(type='BN'), dict(type='SyncBN'), None])
def test_enc_head_state_dict_matches_mmsegmentation(add_lateral, use_se_loss, norm):
    options = dict(
        add_lateral=add_lateral, use_se_loss=use_se_loss, norm_cfg=norm)
    assert_same_state(head(StockEncHead, **options), head(EncHead, **options))


@pytest.mark.parametrize('dtype', [SINGLE, DOUBLE])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('use_se_loss', [True, False])
@pytest.mark.parametrize('add_lateral', [True, False])
def test_enc_head_logits_match_mmsegmentation(
        add_lateral, use_se_loss, training, dtype):
    stock, ours = twins(
        dtype, training, add_lateral=add_lateral, use_se_loss=use_se_loss)
    maps, outputs = features(dtype), []
    for module in (stock, ours):
        torch.manual_seed(11)
        outputs.append(module(maps))
    expected, got = outputs
    if not use_se_loss:
        expected, got = (expected, ), (got, )
    assert [each.shape[1] for each in got] == [CLASSES] * len(expected)
    for mine, theirs in zip(got, expected):
        assert_same(mine, theirs, TOLERANCE[dtype])


@pytest.mark.parametrize('dtype', [SINGLE, DOUBLE])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('add_lateral', [True, False])
@pytest.mark.parametrize('align_corners', [True, False])
def test_enc_head_losses_match_mmsegmentation(
        align_corners, add_lateral, training, dtype):
    stock, ours = twins(
        dtype, training, add_lateral=add_lateral, align_corners=align_corners)
    maps, labels = features(dtype), label_maps()
    expected, _ = run(stock, maps, labels)
    got, _ = run(ours, maps, labels)
    assert list(got) == list(expected) == ['loss_ce', 'acc_seg', 'loss_se']
    for key, value in expected.items():
        assert_same(got[key], value, TOLERANCE[dtype], key)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('add_lateral', [True, False])
@pytest.mark.parametrize('norm', [dict(type='BN'), dict(type='IN'), None])
def test_enc_head_gradients_match_mmsegmentation(norm, add_lateral, training):
    stock, ours = twins(
        training=training, add_lateral=add_lateral, norm_cfg=norm)
    maps, labels = features(), label_maps()
    _, expected = run(stock, maps, labels)
    _, got = run(ours, maps, labels)
    assert got.keys() == expected.keys()
    used = {name for name, grad in expected.items() if grad is not None}
    assert used >= {'input 3', 'enc_module.encoding.0.codewords',
                    'enc_module.encoding.0.scale', 'se_layer.weight'}
    assert ('input 1' in used) == add_lateral
    assert expected['enc_module.encoding.0.codewords'].abs().max() > 1e-8
    for name, grad in expected.items():
        if grad is None:
            assert got[name] is None, name
        else:
            assert_same(got[name], grad, 1e-7, name)


def test_enc_head_float32_gradients_match_mmsegmentation():
    stock, ours = twins(SINGLE, add_lateral=True)
    maps, labels = features(SINGLE), label_maps()
    _, expected = run(stock, maps, labels)
    _, got = run(ours, maps, labels)
    largest = max(g.abs().max() for g in expected.values() if g is not None)
    for name, grad in expected.items():
        if grad is not None:
            torch.testing.assert_close(
                got[name], grad, rtol=0, atol=1e-5 * largest.item())


def test_enc_head_running_statistics_match_mmsegmentation():
    stock, ours = twins(add_lateral=True)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    maps, labels = features(), label_maps()
    for module in (stock, ours):
        run(module, maps, labels)
    expected, got = stock.state_dict(), ours.state_dict()
    statistics = [name for name in before if 'running' in name]
    assert len(statistics) == 2 * 6  # mean and variance of each norm
    for name in statistics:
        assert not torch.equal(got[name], before[name])
        assert_same(got[name], expected[name], 1e-9, name)


@pytest.mark.parametrize('use_se_loss', [True, False])
def test_enc_head_predictions_match_mmsegmentation(use_se_loss):
    stock, ours = twins(training=False, use_se_loss=use_se_loss)
    maps = features(batch=1)
    expected, got = [
        module.predict(maps, [dict(img_shape=(40, 56))], {})
        for module in (stock, ours)
    ]
    assert got.shape == (1, CLASSES, 40, 56)
    assert_same(got, expected, 1e-9)


def test_enc_head_without_se_loss_trains():
    ours = head(EncHead, use_se_loss=False)
    losses, grads = run(ours, features(SINGLE), label_maps())
    assert losses.keys() == {'loss_ce', 'acc_seg'}
    assert not hasattr(ours, 'se_layer')
    assert all(
        grad is not None for name, grad in grads.items()
        if not name.startswith('input'))


def test_enc_head_without_se_loss_has_equal_loss_ce():
    _, ours = twins(training=False, use_se_loss=False)
    _, full = twins(training=False)
    full.load_state_dict(ours.state_dict(), strict=False)
    maps, labels = features(), label_maps()
    losses, _ = run(ours, maps, labels)
    assert losses['loss_ce'] == run(full, maps, labels)[0]['loss_ce']


# --- Semantic encoding -------------------------------------------------------


class Recorder(nn.Module):
    """Record the target of a loss."""
    loss_name = 'loss_recorded'

    def forward(self, pred, target, **kwargs):
        self.target = target
        return pred.sum()


def target_of(labels, **kwargs):
    ours = head(EncHead, **kwargs)
    ours.loss_se_decode = Recorder()
    ours.loss(features(SINGLE, len(labels)), samples(labels), {})
    return ours.loss_se_decode.target.tolist()


def test_enc_head_se_target_is_presence_of_classes():
    labels = torch.full((2, 1, 8, 8), IGNORE)
    labels[0, 0, 0, :3] = torch.tensor([0, 2, 6])
    assert target_of(labels) == [[1, 0, 1, 0, 0, 0, 1], [0] * 7]


def test_enc_head_se_target_excludes_ignored_class():
    labels = torch.zeros(2, 1, 8, 8, dtype=torch.int64)
    labels[:, :, 0, :3] = torch.tensor([0, 3, 5])
    assert target_of(labels, ignore_index=3) == [[1, 0, 0, 0, 0, 1, 0]] * 2


def test_enc_head_accepts_semantic_encoding_loss():
    _, ours = twins(training=False)
    other = head(
        EncHead, loss_se_decode=dict(type='SemanticEncodingLoss')).double()
    other.load_state_dict(ours.state_dict(), strict=True)
    other.eval()
    assert isinstance(other.loss_se_decode, SemanticEncodingLoss)
    maps, labels = features(), label_maps()
    expected, got = run(ours, maps, labels)[0], run(other, maps, labels)[0]
    for key, value in expected.items():
        assert got[key].item() == pytest.approx(value.item(), rel=1e-6)


# --- Dropout and reduction ---------------------------------------------------


def test_enc_head_dropout_type_selects_layer():
    assert type(head(EncHead).dropout) is nn.Dropout2d
    assert type(head(EncHead, dropout_type='Dropout').dropout) is nn.Dropout
    for kind in ('Dropout', 'Dropout2d'):
        ours = head(EncHead, dropout_type=kind, dropout_ratio=0.4)
        assert ours.dropout.p == 0.4
        assert head(EncHead, dropout_type=kind, dropout_ratio=0).dropout is None


def kept_by(kind):
    """Return which elements the dropout keeps, (B, C, N)."""
    ours = head(EncHead, dropout_type=kind, dropout_ratio=0.5)
    seen = []
    ours.conv_seg.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    ours.cls_seg(torch.ones(3, 12, 5, 7))
    return (seen[0] > 0).flatten(2)


def test_enc_head_dropout_drops_elements_or_channels():
    by_element, by_channel = kept_by('Dropout'), kept_by('Dropout2d')
    assert (by_element.any(2) & ~by_element.all(2)).all()
    assert torch.equal(by_channel.any(2), by_channel.all(2))
    assert by_channel.any() and not by_channel.all()


def test_enc_head_dropout_is_off_in_evaluation():
    _, ours = twins(training=False, dropout_ratio=0.9)
    maps = features()
    assert torch.equal(ours(maps)[0], ours(maps)[0])


def test_enc_head_dropout_draws_the_stock_random_numbers():
    stock, ours = twins(dropout_ratio=0.5)
    maps, after = features(), []
    for module in (stock, ours):
        torch.manual_seed(5)
        module(maps)
        after.append(torch.get_rng_state())
    assert torch.equal(*after)


def test_enc_head_rejects_unknown_dropout_type():
    with pytest.raises(ValueError, match="dropout_type.*'Dropout3d'"):
        head(EncHead, dropout_type='Dropout3d')


def test_enc_head_code_reduction_is_mean_or_sum():
    mean, total = head(EncHead), head(EncHead, code_reduction='sum')
    assert mean.enc_module.reduction == 'mean'
    total.load_state_dict(mean.state_dict(), strict=True)
    maps = features(SINGLE)
    for ours in (mean.eval(), total.eval()):
        nn.init.eye_(ours.se_layer.weight)
        nn.init.zeros_(ours.se_layer.bias)
    torch.testing.assert_close(total(maps)[1], 5 * mean(maps)[1])
    with pytest.raises(ValueError, match='reduction'):
        head(EncHead, code_reduction='max')


def test_enc_head_arguments_reach_encoding_module():
    ours = head(
        EncHead, num_codes=9, act_cfg=dict(type='LeakyReLU'),
        norm_cfg=dict(type='BN', eps=0.5))
    assert ours.num_codes == 9
    assert ours.enc_module.encoding[0].codewords.shape == (9, 12)
    assert ours.enc_module.encoding[1].eps == 0.5
    assert isinstance(
        ours.enc_module.encoding_project.activate, nn.LeakyReLU)


def test_enc_head_init_weights_keeps_codewords():
    ours = head(EncHead)
    ours.init_weights()
    bound = (5 * 12)**-0.5
    layer = ours.enc_module.encoding[0]
    assert 0 < layer.codewords.abs().max() <= bound
    assert -1 <= layer.scale.min() < layer.scale.max() <= 0
    assert 0.005 < ours.conv_seg.weight.std() < 0.02
