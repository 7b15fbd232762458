"""OHEMPixelSampler picks the pixels that MMSegmentation's sampler picks."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmseg.models.losses import CrossEntropyLoss
from mmseg.structures import OHEMPixelSampler as StockSampler
from torch import nn

from mmseg_encstdc.losses import OhemCELoss, OHEMPixelSampler

IGNORE = 255
CLASSES = 4
thorough = settings(max_examples=60, deadline=None, derandomize=True)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
thresholds = st.sampled_from([None, 0.1, 0.3, 0.7, 1.5, -1.])
counts = st.integers(2, 60)
ignored_shares = st.sampled_from([0., 0.3, 0.9, 1.])


def head(*losses):
    """What a sampler sees of a decode head."""
    losses = losses or (CrossEntropyLoss(), )
    return SimpleNamespace(
        ignore_index=IGNORE,
        loss_decode=losses[0] if len(losses) == 1 else nn.ModuleList(losses))


def draw(size, seed, ignored):
    make = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size[0], CLASSES, *size[1:], generator=make)
    labels = torch.randint(0, CLASSES, size, generator=make)
    labels[torch.rand(size, generator=make) < ignored] = IGNORE
    return logits, labels


def losses_of(logits, labels):
    return F.cross_entropy(
        logits, labels, ignore_index=IGNORE, reduction='none')


@thorough
@given(sizes, thresholds, counts, ignored_shares, st.integers(0, 2**16))
def test_the_same_pixels_are_picked(size, thresh, min_kept, ignored, seed):
    logits, labels = draw(size, seed, ignored)
    context = head()
    expected = StockSampler(context, thresh, min_kept).sample(
        logits, labels.unsqueeze(1))
    ours = OHEMPixelSampler(context, thresh, min_kept)
    assert torch.equal(ours.sample(logits, labels.unsqueeze(1)), expected)
    assert torch.equal(
        ours.of_map(losses_of(logits, labels), labels, CLASSES), expected)


@pytest.mark.parametrize('losses', [
    (CrossEntropyLoss(class_weight=[1., 5., 0.1, 2.]), ),
    (CrossEntropyLoss(loss_weight=0.1),
     CrossEntropyLoss(class_weight=[1., 5., 0.1, 2.])),
])
def test_without_a_threshold_the_losses_of_the_head_decide(losses):
    logits, labels = draw((2, 9, 9), 0, 0.2)
    context = head(*losses)
    expected = StockSampler(context, None, 20).sample(
        logits, labels.unsqueeze(1))
    ours = OHEMPixelSampler(context, None, 20)
    assert torch.equal(ours.sample(logits, labels.unsqueeze(1)), expected)
    assert torch.equal(
        ours.of_map(losses_of(logits, labels), labels, CLASSES), expected)


def test_with_a_threshold_class_weights_decide_nothing():
    logits, labels = draw((2, 9, 9), 0, 0.2)
    weighed = head(CrossEntropyLoss(class_weight=[1., 5., 0.1, 2.]))
    assert torch.equal(*(
        OHEMPixelSampler(context, 0.4, 20).of_map(
            losses_of(logits, labels), labels, CLASSES)
        for context in (head(), weighed)))


def test_tied_pixels_share_the_last_places_and_the_loss_is_the_same():
    losses = torch.tensor([[[3., 1., 1., 1., 0.]]])
    labels = torch.zeros(1, 1, 5, dtype=torch.int64)
    weights = OHEMPixelSampler(head(), None, 3).of_map(losses, labels, CLASSES)
    torch.testing.assert_close(
        weights, torch.tensor([[[1., 2 / 3, 2 / 3, 2 / 3, 0.]]]))
    assert (weights * losses).sum() == 3 + 1 + 1


def test_losses_it_cannot_take_apart_are_left_to_the_logits():
    assert OHEMPixelSampler(head(CrossEntropyLoss()), None, 5).covers()
    assert OHEMPixelSampler(head(OhemCELoss()), 0.7, 5).covers()
    assert not OHEMPixelSampler(head(OhemCELoss()), None, 5).covers()
    assert not OHEMPixelSampler(
        head(CrossEntropyLoss(use_sigmoid=True)), None, 5).covers()


def test_no_gradient_passes():
    logits, labels = draw((1, 5, 5), 0, 0.)
    sampler = OHEMPixelSampler(head(), 0.7, 5)
    weights = sampler.sample(logits.requires_grad_(), labels.unsqueeze(1))
    assert not weights.requires_grad


@pytest.mark.parametrize('thresh', [None, 0.7])
@pytest.mark.parametrize('shape', [(1, 1, 6, 5), (1, 2, 5, 5)])
def test_labels_of_another_size_are_refused(thresh, shape):
    sampler = OHEMPixelSampler(head(), thresh, 5)
    labels = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(AssertionError, match='in the size of seg_logit'):
        sampler.sample(torch.zeros(1, CLASSES, 5, 5), labels)


def test_without_a_threshold_a_loss_of_no_pixels_is_refused():
    sampler = OHEMPixelSampler(head(OhemCELoss()), None, 5)
    with pytest.raises(AssertionError, match='needs losses of pixels'):
        sampler.sample(torch.zeros(1, CLASSES, 5, 5),
                       torch.zeros(1, 1, 5, 5, dtype=torch.int64))
