"""Losses, targets and gradients equal those recorded from the authors' code."""
import pytest
import torch
import torch.nn.functional as F
from comparisons import samples
from golden import CONFIGS, arrays, fill, relative_error, tensor
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_encstdc.losses import (
    DetailAggregateLoss,
    OhemCELoss,
    detail_target,
    presence_target,
)
from mmseg_encstdc.ops import encode

RECORDED = {**arrays('stdc_losses'), **arrays('encoding')}


def gradient(loss, logits):
    """Return the loss of logits, and its gradient."""
    logits = logits.clone().requires_grad_()
    value = loss(logits)
    return value.detach(), torch.autograd.grad(value, logits)[0]


OHEM_SHAPES = {
    'a': (2, 19, 64, 96),
    'b': (2, 19, 64, 96),
    'c': (2, 6, 48, 48),
    'd': (1, 150, 40, 40),
    'e': (2, 19, 64, 96),
}
DETAIL_SHAPES = {  # batch, size, classes, size of the logits
    'a': (2, (64, 96), 19, (64, 96)),
    'b': (2, (64, 128), 19, (8, 16)),
    'c': (1, (80, 48), 150, (20, 12)),
    'd': (1, (66, 50), 5, (33, 25)),
}


def ohem_inputs(case):
    b, c, h, w = OHEM_SHAPES[case]
    labels = torch.from_numpy(fill.labels(f'ohem.{case}.labels', (b, h, w), c))
    logits = torch.from_numpy(fill.normal(f'ohem.{case}.logits', (b, c, h, w), 3))
    easy = fill.normal(f'ohem.{case}.easy', (b, 1, h, w)) > -0.5
    right = F.one_hot(labels.clamp(max=c - 1), c).movedim(-1, 1)
    return logits + 6 * right * torch.from_numpy(easy), labels


@pytest.mark.parametrize('case', OHEM_SHAPES)
def test_ohem_loss_matches_the_authors(case):
    logits, labels = ohem_inputs(case)
    thresh, min_kept = RECORDED[f'ohem.{case}.args'].tolist()
    value, grad = gradient(
        lambda x: OhemCELoss(thresh, int(min_kept))(x, labels), logits)
    assert value.item() == pytest.approx(
        RECORDED[f'ohem.{case}.loss'].item(), rel=1e-5)
    expected = RECORDED[f'ohem.{case}.grad']
    torch.testing.assert_close(
        grad[:, ::4, ::4, ::4], expected,
        rtol=0, atol=1e-5 * expected.abs().max().item())


def detail_inputs(case):
    b, size, classes, small = DETAIL_SHAPES[case]
    labels = fill.labels(f'detail.{case}.labels', (b, *size), classes, cell=11)
    logits = fill.normal(f'detail.{case}.logits', (b, 1, *small))
    return torch.from_numpy(logits), torch.from_numpy(labels)


@pytest.mark.parametrize('case', DETAIL_SHAPES)
def test_detail_target_equals_the_authors(case):
    _, labels = detail_inputs(case)
    expected = RECORDED[f'detail.{case}.target']
    assert torch.equal(detail_target(labels).unsqueeze(1).byte(), expected)
    assert 0 < expected.float().mean() < 1


@pytest.mark.parametrize('case', DETAIL_SHAPES)
def test_detail_loss_matches_the_authors(case):
    logits, labels = detail_inputs(case)
    loss = DetailAggregateLoss()
    got = [value.item() for value in loss.components(logits, labels)]
    assert got == pytest.approx(
        [RECORDED[f'detail.{case}.{term}'].item() for term in ('bce', 'dice')],
        rel=1e-5)
    _, grad = gradient(lambda x: loss(x, labels), logits)
    expected = RECORDED[f'detail.{case}.grad']
    torch.testing.assert_close(
        grad, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize('case', DETAIL_SHAPES)
def test_detail_target_is_the_union_of_strides_1_and_2(case):
    _, labels = detail_inputs(case)
    expected = RECORDED[f'detail.{case}.target'].bool().squeeze(1)
    kernel = -torch.ones(1, 1, 3, 3)
    kernel[..., 1, 1] = 8

    def edges(stride):
        found = F.conv2d(
            labels.unsqueeze(1).float(), kernel, stride=stride, padding=1)
        full = F.interpolate(found, labels.shape[1:], mode='nearest')
        return full.squeeze(1) > 0.1

    assert torch.equal(edges(1) | edges(2), expected)
    assert not torch.equal(edges(1), expected)
    assert (edges(4) & ~expected).any()  # edges at stride 4 alone


@pytest.mark.parametrize('name', ['tiny', 'odd', 'real'])
def test_encode_matches_the_authors(name):
    b, d, h, w, k = RECORDED[f'encoding.{name}.shape'].tolist()
    x = tensor(f'{name}.x', (b, d, h, w), 0.7)
    codewords = torch.from_numpy(fill.weight(f'{name}.codewords', (k, d)))
    scale = torch.from_numpy(fill.weight(f'{name}.scale', (k, )))
    if name == 'real':
        scale = scale.double() * 0.05
    leaves = [value.double().requires_grad_() for value in (x, codewords, scale)]
    out = encode(*leaves)
    grads = torch.autograd.grad(
        out, leaves, tensor(f'{name}.grad_out', (b, k, d)).double())
    for what, value in zip(('out', 'grad_x', 'grad_codewords', 'grad_scale'),
                           (out, *grads)):
        expected = RECORDED[f'encoding.{name}.{what}']
        assert relative_error(value, expected) < 1e-6, what


def test_encnet_losses_match_the_authors():
    cfg = Config.fromfile(CONFIGS / 'encnet_r50s_ade.py').model
    logits = tensor('se.logits', (3, 21, 32, 40), 2)
    auxiliary = tensor('se.aux', (3, 21, 32, 40), 2)
    presence = tensor('se.presence', (3, 21))
    labels = torch.from_numpy(fill.labels('se.labels', (3, 32, 40), 21))
    head, beside = (MODELS.build({**part, 'num_classes': 21}) for part in (
        cfg.decode_head, cfg.auxiliary_head))
    losses = head.loss_by_feat((logits, presence), samples(labels))
    more = beside.loss_by_feat(auxiliary, samples(labels))
    total = losses['loss_ce'] + losses['loss_se'] + more['loss_ce']
    assert torch.equal(presence_target(labels, 21).byte(),
                       RECORDED['se.presence_target'])
    assert losses['loss_se'].item() == pytest.approx(
        0.2 * RECORDED['se.bce'].item(), rel=1e-5)
    assert total.item() == pytest.approx(RECORDED['se.total'].item(), rel=1e-5)
