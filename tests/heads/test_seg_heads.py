"""SegHead and DetailHead."""
import pytest
import torch
import torch.nn.functional as F
from comparisons import samples
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from torch import nn

from mmseg_encstdc.backbones import STDCContextPathNet
from mmseg_encstdc.heads import DetailHead, SegHead
from mmseg_encstdc.losses import DetailAggregateLoss

CLASSES = 5
BN = dict(type='BN')


def seg_head(**kwargs):
    return SegHead(**{
        **dict(in_channels=6, channels=8, num_classes=CLASSES, norm_cfg=BN),
        **kwargs
    })


def stock_head(**kwargs):
    assert FCNHead.__module__ == 'mmseg.models.decode_heads.fcn_head'
    return FCNHead(**{
        **dict(
            in_channels=6, channels=8, num_classes=CLASSES, norm_cfg=BN,
            num_convs=1, concat_input=False),
        **kwargs
    })


def label_maps(batch=2, size=(32, 48)):
    labels = torch.randint(0, CLASSES, (batch, 1, *size))
    labels[:, :, :5, :7] = 255
    return labels


# --- SegHead -----------------------------------------------------------------


def test_seg_head_has_no_bias_and_no_dropout():
    head = seg_head()
    assert head.conv_seg.bias is None
    assert head.conv_seg.kernel_size == (1, 1)
    assert head.dropout is None


def test_seg_head_layers_are_the_authors():
    head = seg_head()
    kinds = [
        type(module) for module in head.modules()
        if not list(module.children()) and 'Loss' not in type(module).__name__
    ]
    assert kinds == [nn.Conv2d, nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert head.convs[0].conv.kernel_size == (3, 3)
    assert head.convs[0].conv.bias is None
    assert head([torch.randn(2, 6, 9, 7)]).shape == (2, CLASSES, 9, 7)


def test_seg_head_keys_match_fcn_head():
    keys = set(stock_head().state_dict())
    assert set(seg_head().state_dict()) == keys - {'conv_seg.bias'}
    assert set(seg_head(bias=True).state_dict()) == keys


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('options', [
    dict(),
    dict(num_convs=2, concat_input=True),
    dict(norm_cfg=None, act_cfg=dict(type='LeakyReLU')),
])
def test_seg_head_with_bias_matches_fcn_head(options, training):
    stock = stock_head(dropout_ratio=0.3, **options).train(training)
    ours = seg_head(
        bias=True, dropout_ratio=0.3, dropout_type='Dropout2d',
        **options).train(training)
    ours.load_state_dict(stock.state_dict(), strict=True)
    stock.load_state_dict(ours.state_dict(), strict=True)
    maps, losses = [torch.randn(2, 6, 8, 12)], []
    labels = label_maps()
    for module in (stock, ours):
        torch.manual_seed(3)
        losses.append(module.loss(maps, samples(labels), {}))
        losses[-1]['loss_ce'].backward()
    assert losses[0].keys() == losses[1].keys()
    torch.testing.assert_close(losses[1], losses[0])
    for mine, theirs in zip(ours.parameters(), stock.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_seg_head_dropout_type_selects_layer():
    assert type(seg_head(dropout_ratio=0.1).dropout) is nn.Dropout
    by_channel = seg_head(dropout_ratio=0.2, dropout_type='Dropout2d')
    assert type(by_channel.dropout) is nn.Dropout2d
    assert by_channel.dropout.p == 0.2


def test_seg_head_rejects_unknown_dropout_type():
    with pytest.raises(ValueError, match="dropout_type.*'Dropout3d'"):
        seg_head(dropout_type='Dropout3d')


def test_seg_head_accepts_one_channel_for_two_classes():
    head = seg_head(num_classes=2, out_channels=1, threshold=0.5)
    assert head([torch.randn(2, 6, 4, 4)]).shape == (2, 1, 4, 4)


def test_seg_head_init_weights_draws_small_conv_seg():
    head = seg_head(channels=64)
    head.init_weights()
    assert 0.007 < head.conv_seg.weight.std() < 0.013


def test_registry_builds_seg_head():
    head = MODELS.build(dict(
        type='SegHead', in_channels=6, channels=8, num_classes=CLASSES))
    assert type(head) is SegHead


def test_seg_head_loss_uses_align_corners():
    for align_corners in (True, False):
        head = seg_head(align_corners=align_corners)
        logits, labels = torch.randn(2, CLASSES, 4, 6), label_maps()
        resized = F.interpolate(
            logits, (32, 48), mode='bilinear', align_corners=align_corners)
        expected = F.cross_entropy(
            resized, labels[:, 0], ignore_index=255, reduction='none').mean()
        got = head.loss_by_feat(logits, samples(labels))['loss_ce']
        torch.testing.assert_close(got, expected)


# --- DetailHead --------------------------------------------------------------


def test_detail_head_predicts_one_channel_without_bias():
    head = DetailHead(6, norm_cfg=BN)
    assert head([torch.randn(2, 6, 8, 12)]).shape == (2, 1, 8, 12)
    assert head.convs[0].conv.out_channels == 64
    assert head.conv_seg.bias is None
    assert head.dropout is None
    assert isinstance(head.loss_decode, DetailAggregateLoss)


def test_detail_head_losses_are_cross_entropy_and_dice():
    head = DetailHead(6, 8, norm_cfg=BN)
    maps, labels = [torch.randn(2, 6, 8, 12)], label_maps()
    losses = head.loss(maps, samples(labels), {})
    assert list(losses) == ['loss_detail_bce', 'loss_detail_dice']
    expected = DetailAggregateLoss().components(head(maps), labels[:, 0])
    torch.testing.assert_close(tuple(losses.values()), expected)
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_detail_head_applies_term_weights():
    loss = dict(type='DetailAggregateLoss', bce_weight=2., dice_weight=3.)
    plain, weighted = DetailHead(6, 8), DetailHead(6, 8, loss_decode=loss)
    logits, data = torch.randn(2, 1, 8, 12), samples(label_maps())
    expected = plain.loss_by_feat(logits, data)
    got = weighted.loss_by_feat(logits, data)
    torch.testing.assert_close(
        got['loss_detail_bce'], 2 * expected['loss_detail_bce'])
    torch.testing.assert_close(
        got['loss_detail_dice'], 3 * expected['loss_detail_dice'])


@pytest.mark.parametrize('stride, channels', [(2, 8), (4, 12), (8, 16)])
def test_detail_head_trains_at_each_stride(stride, channels):
    net = STDCContextPathNet(
        dict(type='STDCNet', stdc_type='STDCNet1',
             channels=(8, 12, 16, 24, 32)),
        last_in_channels=(32, 24), out_channels=8,
        ffm_cfg=dict(in_channels=24, out_channels=16), detail_strides=(2, 4))
    head = DetailHead(
        channels, 8, norm_cfg=BN, in_index={8: 0, 2: 4, 4: 5}[stride])
    maps, labels = net(torch.randn(2, 3, 64, 96)), label_maps(size=(64, 96))
    logits = head(maps)
    assert logits.shape == (2, 1, 64 // stride, 96 // stride)
    losses = head.loss_by_feat(logits, samples(labels))
    assert losses.keys() == {'loss_detail_bce', 'loss_detail_dice'}
    sum(losses.values()).backward()
    assert net.backbone.stages[0].conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('num_classes', [0, 2, 19, None])
def test_detail_head_rejects_num_classes(num_classes):
    with pytest.raises(ValueError, match='predicts 1 channel.*num_classes'):
        DetailHead(6, 8, num_classes=num_classes)


def test_detail_head_accepts_num_classes_1():
    assert DetailHead(6, 8, num_classes=1).num_classes == 1


def test_registry_builds_detail_head():
    head = MODELS.build(dict(type='DetailHead', in_channels=6, channels=8))
    assert type(head) is DetailHead


def test_detail_head_does_not_warn(recwarn):
    DetailHead(6, 8)
    assert not [w for w in recwarn if 'threshold' in str(w.message)]


def test_detail_head_rejects_loss_without_components():
    with pytest.raises(ValueError, match='components method'):
        DetailHead(in_channels=6, loss_decode=dict(type='BinaryDiceLoss'))
