"""FCNHead and STDCHead compute the losses of MMSegmentation's heads."""
import pytest
import torch
from comparisons import assert_same_losses, losses_and_gradient
from mmseg.models.decode_heads import FCNHead as StockFCNHead
from mmseg.models.decode_heads import STDCHead as StockSTDCHead
from mmseg.models.decode_heads import decode_head
from mmseg.structures import OHEMPixelSampler as StockSampler

from mmseg_encstdc.heads import FCNHead, STDCHead
from mmseg_encstdc.losses import OHEMPixelSampler

IGNORE = 255
SAMPLERS = [None, dict(type='OHEMPixelSampler', thresh=0.7, min_kept=100),
            dict(type='OHEMPixelSampler', min_kept=100)]


def draw(channels, classes=5):
    labels = torch.randint(0, classes, (2, 11, 13)).repeat_interleave(
        4, 1).repeat_interleave(4, 2)[:, :41, :50]
    labels[torch.rand(labels.shape) < 0.1] = IGNORE
    return torch.randn(2, channels, 6, 7), labels


def results(head, logits, labels):
    return losses_and_gradient(head.loss_by_feat, logits, labels)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('sampler', SAMPLERS, ids=str)
def test_fcn_head_matches_mmsegmentation(sampler, align_corners, monkeypatch):
    settings = dict(in_channels=8, channels=4, num_classes=5, num_convs=1,
                    align_corners=align_corners)
    stock = StockFCNHead(**settings)
    if sampler:
        values = {k: v for k, v in sampler.items() if k != 'type'}
        stock.sampler = StockSampler(stock, **values)
    inputs = draw(5)
    expected = results(stock, *inputs)
    ours = FCNHead(**settings, sampler=sampler)
    assert sampler is None or type(ours.sampler) is OHEMPixelSampler
    monkeypatch.delattr(decode_head, 'resize')  # no logits are resized
    assert_same_losses(results(ours, *inputs), expected)


def test_fcn_head_with_stock_sampler_matches_mmsegmentation():
    settings = dict(in_channels=8, channels=4, num_classes=5, num_convs=1)
    stock, ours = StockFCNHead(**settings), FCNHead(**settings)
    for head in (stock, ours):
        head.sampler = StockSampler(head, 0.7, 100)
    inputs = draw(5)
    assert_same_losses(results(ours, *inputs), results(stock, *inputs))


DETAIL = dict(
    in_channels=8, channels=4, num_convs=1, num_classes=2, align_corners=True,
    loss_decode=[
        dict(type='CrossEntropyLoss', loss_name='loss_ce', use_sigmoid=True),
        dict(type='DiceLoss', loss_name='loss_dice')])


@pytest.mark.parametrize('threshold', [0.1, 0.5, 3.])
@pytest.mark.parametrize('fusion', [(0.6, 0.3, 0.1), (0.05, 0.04, 0.08)])
def test_stdc_head_matches_mmsegmentation(threshold, fusion):
    stock, ours = (kind(boundary_threshold=threshold, **DETAIL)
                   for kind in (StockSTDCHead, STDCHead))
    state = {**stock.state_dict(),
             'fusion_kernel': torch.tensor(fusion).view(1, 3, 1, 1)}
    stock.load_state_dict(state)
    ours.load_state_dict(state)
    inputs = draw(2)
    assert_same_losses(results(ours, *inputs), results(stock, *inputs))


def test_stdc_head_of_cross_entropy_does_not_resize_logits(monkeypatch):
    settings = {**DETAIL, 'loss_decode': dict(type='CrossEntropyLoss')}
    inputs = draw(2)
    expected = results(StockSTDCHead(**settings), *inputs)
    monkeypatch.delattr(decode_head, 'resize')
    assert_same_losses(results(STDCHead(**settings), *inputs), expected)


def test_stdc_head_edges_are_0_or_1_at_label_size():
    _, labels = draw(2)
    edges = STDCHead(**DETAIL).edges(labels)
    assert edges.dtype == torch.int64 and edges.shape == labels.shape
    assert set(edges.unique().tolist()) == {0, 1}


@pytest.mark.parametrize('loss', [
    dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True),
    dict(type='DiceLoss', use_sigmoid=False, naive_dice=True, loss_weight=0.3),
    [dict(type='DiceLoss'), dict(type='CrossEntropyLoss')],
    dict(type='LovaszLoss', reduction='none', loss_weight=2.),
], ids=str)
def test_stdc_head_with_other_losses_matches_mmsegmentation(loss):
    settings = {**DETAIL, 'loss_decode': loss}
    inputs = draw(2)
    assert_same_losses(results(STDCHead(**settings), *inputs),
                results(StockSTDCHead(**settings), *inputs))


@pytest.mark.parametrize('ignore_index', [0, 1, 7])
@pytest.mark.parametrize('threshold', [0.1, 1., 2., -0.5])
def test_stdc_head_with_any_ignore_index_matches_mmsegmentation(
        ignore_index, threshold):
    settings = {**DETAIL, 'ignore_index': ignore_index}
    stock, ours = (kind(boundary_threshold=threshold, **settings)
                   for kind in (StockSTDCHead, STDCHead))
    for head in (stock, ours):
        head.fusion_kernel.data.mul_(4)
    inputs = draw(2)
    assert_same_losses(results(ours, *inputs), results(stock, *inputs))
