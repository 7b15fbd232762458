"""OHEMPixelSampler selects the pixels that MMSegmentation's sampler selects."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmseg.models.losses import CrossEntropyLoss
from mmseg.structures import OHEMPixelSampler as StockSampler
from torch import nn

from mmseg_encstdc.losses import OhemCELoss, OHEMPixelSampler, PixelLosses

IGNORE = 255
CLASSES = 4
thorough = settings(max_examples=60, deadline=None, derandomize=True)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
thresholds = st.sampled_from([None, 0.1, 0.3, 0.7, 1.5, -1.])
counts = st.integers(2, 60)
ignored_fractions = st.sampled_from([0., 0.3, 0.9, 1.])


def head(*losses):
    """Return the attributes of a decode head that a sampler reads."""
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


def pixels_of(logits, labels):
    losses = F.cross_entropy(
        logits, labels, ignore_index=IGNORE, reduction='none')
    return PixelLosses(losses, labels, CLASSES, IGNORE)


@thorough
@given(sizes, thresholds, counts, ignored_fractions, st.integers(0, 2**16))
def test_sampler_matches_mmsegmentation(size, thresh, min_kept, ignored, seed):
    logits, labels = draw(size, seed, ignored)
    context = head()
    expected = StockSampler(context, thresh, min_kept).sample(
        logits, labels.unsqueeze(1))
    ours = OHEMPixelSampler(context, thresh, min_kept)
    assert torch.equal(ours.sample(logits, labels.unsqueeze(1)), expected)
    assert torch.equal(ours.pixel_weights(pixels_of(logits, labels)), expected)


@pytest.mark.parametrize('losses', [
    (CrossEntropyLoss(class_weight=[1., 5., 0.1, 2.]), ),
    (CrossEntropyLoss(loss_weight=0.1),
     CrossEntropyLoss(class_weight=[1., 5., 0.1, 2.])),
])
def test_sampler_without_threshold_uses_the_losses_of_the_head(losses):
    logits, labels = draw((2, 9, 9), 0, 0.2)
    context = head(*losses)
    expected = StockSampler(context, None, 20).sample(
        logits, labels.unsqueeze(1))
    ours = OHEMPixelSampler(context, None, 20)
    assert torch.equal(ours.sample(logits, labels.unsqueeze(1)), expected)
    assert torch.equal(ours.pixel_weights(pixels_of(logits, labels)), expected)


def test_sampler_with_threshold_ignores_class_weights():
    logits, labels = draw((2, 9, 9), 0, 0.2)
    weighed = head(CrossEntropyLoss(class_weight=[1., 5., 0.1, 2.]))
    assert torch.equal(*(
        OHEMPixelSampler(context, 0.4, 20).pixel_weights(pixels_of(logits, labels))
        for context in (head(), weighed)))


def test_sampler_weights_tied_pixels_equally():
    losses = torch.tensor([[[3., 1., 1., 1., 0.]]])
    labels = torch.zeros(1, 1, 5, dtype=torch.int64)
    weights = OHEMPixelSampler(head(), None, 3).pixel_weights(
        PixelLosses(losses, labels, CLASSES, IGNORE))
    torch.testing.assert_close(
        weights, torch.tensor([[[1., 2 / 3, 2 / 3, 2 / 3, 0.]]]))
    assert (weights * losses).sum() == 3 + 1 + 1


def test_sampler_takes_pixels_depends_on_thresh_and_losses():
    assert OHEMPixelSampler(head(CrossEntropyLoss()), None, 5).takes_pixels()
    assert OHEMPixelSampler(head(OhemCELoss()), 0.7, 5).takes_pixels()
    assert not OHEMPixelSampler(head(OhemCELoss()), None, 5).takes_pixels()
    assert not OHEMPixelSampler(
        head(CrossEntropyLoss(use_sigmoid=True)), None, 5).takes_pixels()


def test_sampler_weights_have_no_gradient():
    logits, labels = draw((1, 5, 5), 0, 0.)
    sampler = OHEMPixelSampler(head(), 0.7, 5)
    weights = sampler.sample(logits.requires_grad_(), labels.unsqueeze(1))
    assert not weights.requires_grad


@pytest.mark.parametrize('thresh', [None, 0.7])
@pytest.mark.parametrize('shape', [(1, 1, 6, 5), (1, 2, 5, 5)])
def test_sampler_rejects_labels_of_another_size(thresh, shape):
    sampler = OHEMPixelSampler(head(), thresh, 5)
    labels = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(AssertionError, match='in the size of seg_logit'):
        sampler.sample(torch.zeros(1, CLASSES, 5, 5), labels)


def test_sampler_without_threshold_rejects_loss_without_pixels():
    sampler = OHEMPixelSampler(head(OhemCELoss()), None, 5)
    with pytest.raises(AssertionError, match='needs a loss per pixel'):
        sampler.sample(torch.zeros(1, CLASSES, 5, 5),
                       torch.zeros(1, 1, 5, 5, dtype=torch.int64))
