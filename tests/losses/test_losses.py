"""Losses: against plain loops and formulas, and in MMSegmentation's heads."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comparisons import samples
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS

from mmseg_encstdc.losses import (
    BinaryDiceLoss,
    DetailAggregateLoss,
    OhemCELoss,
    SemanticEncodingLoss,
    binary_dice_loss,
    detail_edges,
    detail_target,
    ohem_mean,
    presence_target,
)

IGNORE = 255
thorough = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 2**16)


def random_labels(shape, classes, ignored=0.2, seed=0):
    make = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, shape, generator=make)
    labels[torch.rand(shape, generator=make) < ignored] = IGNORE
    return labels


def gradient(loss, logits):
    """Return ``loss(logits)`` and its gradient."""
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


# --- Hard example mining -----------------------------------------------------


def ohem_by_sorting(losses, threshold, min_kept):
    """Average as the authors do: loss number min_kept, from 0, decides."""
    ordered = sorted(losses, reverse=True)
    min_kept = min(max(min_kept, 1), len(ordered))
    if min_kept < len(ordered) and ordered[min_kept] > threshold:
        kept = [loss for loss in ordered if loss > threshold]
    else:
        kept = ordered[:min_kept]
    return sum(kept) / len(kept)


def pixel_losses(logits, labels, class_weight=None):
    """Compute the cross entropy of each pixel in NumPy, 0 where ignored."""
    logits = logits.double().movedim(1, -1).flatten(0, -2).numpy()
    labels = labels.flatten().numpy()
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    valid = labels != IGNORE
    losses = np.zeros(len(labels))
    picked = labels[valid]
    losses[valid] = -log_p[valid, picked]
    if class_weight is not None:
        losses[valid] *= np.asarray(class_weight)[picked]
    return losses.tolist()


@thorough
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=40),
    st.integers(0, 4),
    st.one_of(st.integers(0, 8), st.integers(0, 60)))
def test_ohem_mean_matches_sorting(
        quarters, threshold, min_kept):
    losses = [value / 4 for value in quarters]  # exact, so ties are ties
    got = ohem_mean(torch.tensor(losses), threshold / 4, min_kept)
    assert got.item() == pytest.approx(
        ohem_by_sorting(losses, threshold / 4, min_kept), rel=1e-6)


@pytest.mark.parametrize('min_kept, kept', [
    (1, [4., 3., 3.]),  # the threshold decides, and 2 itself is not hard
    (2, [4., 3., 3.]),
    (3, [4., 3., 3.]),  # loss number 3 is 2: the count decides
    (4, [4., 3., 3., 2.]),
    (6, [4., 3., 3., 2., 2., 1.]),
    (7, [4., 3., 3., 2., 2., 1., 0.]),
    (8, [4., 3., 3., 2., 2., 1., 0.]),
])
def test_ohem_mean_averages_hard_or_largest_losses(min_kept, kept):
    losses = torch.tensor([2., 3., 0., 4., 1., 3., 2.])
    got = ohem_mean(losses, 2., min_kept)
    assert got.item() == pytest.approx(sum(kept) / len(kept))


@thorough
@given(
    st.integers(1, 3), st.integers(2, 6), st.integers(1, 6),
    st.integers(1, 6), st.floats(0, 1), st.floats(0.05, 0.95),
    st.one_of(st.integers(1, 120), st.floats(0.001, 1)), seeds)
def test_ohem_loss_matches_sorting(
        b, c, h, w, ignored, thresh, min_kept, seed):
    make = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(b, c, h, w, generator=make)
    labels = random_labels((b, h, w), c, ignored, seed)
    losses = pixel_losses(logits, labels)
    cut = -math.log(thresh)
    assume(all(abs(loss - cut) > 1e-5 for loss in losses))
    count = (
        min_kept if isinstance(min_kept, int)
        else math.floor(min_kept * b * h * w))
    value, grad = gradient(
        lambda x: OhemCELoss(thresh, min_kept)(x, labels), logits)
    assert value.item() == pytest.approx(
        ohem_by_sorting(losses, cut, count), rel=1e-5, abs=1e-6)
    assert grad.isfinite().all()


@thorough
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=40),
    st.integers(0, 6), st.integers(1, 50))
def test_ohem_mean_without_branches_is_equal(
        quarters, threshold, min_kept):
    losses = torch.tensor(quarters) / 4
    looked = gradient(lambda x: ohem_mean(x, threshold / 4, min_kept), losses)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.compiler, 'is_compiling', lambda: True)
        blind = gradient(lambda x: ohem_mean(x, threshold / 4, min_kept), losses)
    torch.testing.assert_close(blind, looked)


def test_ohem_mean_weights_tied_losses_equally():
    losses = torch.tensor([3., 1., 2., 1., 1., 0.])
    value, grad = gradient(lambda x: ohem_mean(x, 9., 4), losses)
    assert value == (3 + 2 + 1 + 1) / 4
    torch.testing.assert_close(
        4 * grad, torch.tensor([1., 2 / 3, 1., 2 / 3, 2 / 3, 0.]))


def test_ohem_mean_propagates_nan():
    losses = torch.tensor([3., math.nan, 2., 1.])
    for threshold, min_kept in ((0.5, 1), (9., 1), (9., 3)):
        assert ohem_mean(losses, threshold, min_kept).isnan()


def test_ohem_loss_compiles_to_one_graph():
    logits, labels = torch.randn(2, 5, 8, 8), random_labels((2, 8, 8), 5)
    loss = OhemCELoss(min_kept=20)
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(gradient(lambda x: compiled(x, labels), logits),
                               gradient(lambda x: loss(x, labels), logits))


@pytest.mark.parametrize('min_kept', [1, 7, 10**6, 1e-6, 1 / 16, 1.])
def test_ohem_loss_of_ignored_pixels_is_zero(min_kept):
    labels = torch.full((2, 5, 6), IGNORE)
    value, grad = gradient(
        lambda x: OhemCELoss(min_kept=min_kept)(x, labels),
        torch.randn(2, 3, 5, 6))
    assert value == 0
    assert torch.equal(grad, torch.zeros(2, 3, 5, 6))


def test_ohem_loss_with_too_few_valid_pixels_averages_zeros():
    labels = torch.full((1, 4, 4), IGNORE)
    labels[0, 0, :3] = 1
    logits = torch.zeros(1, 2, 4, 4)  # a loss of log 2 for each valid pixel
    loss = OhemCELoss(thresh=0.7, min_kept=12)(logits, labels)
    assert loss.item() == pytest.approx(3 * math.log(2) / 12)


def test_ohem_loss_with_large_min_kept_averages_all_pixels():
    logits, labels = torch.randn(2, 3, 4, 5), random_labels((2, 4, 5), 3)
    loss = OhemCELoss(thresh=0.01, min_kept=10**6)(logits, labels)
    assert loss.item() == pytest.approx(
        np.mean(pixel_losses(logits, labels)), rel=1e-5)


def test_ohem_loss_gradient_reaches_min_kept_pixels_only():
    logits, labels = torch.randn(2, 3, 8, 8), random_labels((2, 8, 8), 3)
    _, grad = gradient(lambda x: OhemCELoss(0.01, 9)(x, labels), logits)
    losses = np.array(pixel_losses(logits, labels))
    hardest = np.sort(np.argsort(losses)[-9:])
    trained = grad.abs().sum(1).flatten().nonzero().flatten()
    assert trained.tolist() == hardest.tolist()


@pytest.mark.parametrize('fraction, count', [(1 / 16, 8), (0.5, 64), (1., 128)])
def test_ohem_loss_min_kept_can_be_a_fraction(fraction, count):
    logits, labels = torch.randn(2, 3, 8, 8), random_labels((2, 8, 8), 3)
    assert OhemCELoss(0.01, fraction)(logits, labels) == (
        OhemCELoss(0.01, count)(logits, labels))


def test_ohem_loss_min_kept_1_is_one_pixel_and_1_0_is_all():
    logits, labels = torch.randn(2, 3, 8, 8), random_labels((2, 8, 8), 3)
    losses = pixel_losses(logits, labels)
    assert OhemCELoss(0.01, 1)(logits, labels).item() == pytest.approx(
        max(losses), rel=1e-5)
    assert OhemCELoss(0.01, 1.)(logits, labels).item() == pytest.approx(
        np.mean(losses), rel=1e-5)


def test_ohem_loss_defaults_are_the_authors():
    loss = OhemCELoss()
    assert (loss.thresh, loss.min_kept) == (0.7, 1 / 16)
    assert (loss.loss_weight, loss.loss_name) == (1.0, 'loss_ohem')


@thorough
@given(seeds, st.integers(1, 60))
def test_ohem_loss_applies_class_weights_before_selection(seed, min_kept):
    weights = [0.1, 1., 4.]
    make = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 5, 5, generator=make)
    labels = random_labels((2, 5, 5), 3, seed=seed)
    losses = pixel_losses(logits, labels, weights)
    cut = -math.log(0.7)
    assume(all(abs(loss - cut) > 1e-5 for loss in losses))
    got = OhemCELoss(0.7, min_kept, class_weight=weights)(logits, labels)
    assert got.item() == pytest.approx(
        ohem_by_sorting(losses, cut, min_kept), rel=1e-5)


def test_ohem_loss_applies_pixel_weights_before_selection():
    logits, labels = torch.randn(1, 3, 4, 4), random_labels((1, 4, 4), 3, 0)
    weight = torch.zeros(1, 4, 4)
    weight[0, 2, 1] = 3.
    value, grad = gradient(
        lambda x: OhemCELoss(0.5, 1)(x, labels, weight=weight), logits)
    loss = pixel_losses(logits, labels)[2 * 4 + 1]
    assert value.item() == pytest.approx(3 * loss, rel=1e-5)
    assert grad.abs().sum(1).nonzero().tolist() == [[0, 2, 1]]


def test_ohem_loss_ignores_given_id():
    logits, labels = torch.randn(1, 3, 4, 4), random_labels((1, 4, 4), 3, 0)
    other = labels.masked_fill(labels == 2, IGNORE)
    loss = OhemCELoss(0.5, 16)
    assert loss(logits, labels, ignore_index=2) == loss(logits, other)


@pytest.mark.parametrize('thresh', [0, 1, -0.1, 1.1, 0., 1., float('nan')])
def test_ohem_loss_rejects_invalid_thresh(thresh):
    with pytest.raises(ValueError, match=r'thresh must be in \(0, 1\)'):
        OhemCELoss(thresh=thresh)


@pytest.mark.parametrize(
    'min_kept', [0, -1, 0., -0.5, 1.5, 10000., float('nan'), float('inf')])
def test_ohem_loss_rejects_invalid_min_kept(min_kept):
    with pytest.raises(ValueError, match='min_kept must be a positive count'):
        OhemCELoss(min_kept=min_kept)


# --- Dice --------------------------------------------------------------------


def dice_by_formula(logits, target, smooth):
    """Compute the mean over samples in plain Python."""
    terms = []
    for values, truth in zip(logits.flatten(1).tolist(),
                             target.flatten(1).tolist()):
        p = [1 / (1 + math.exp(-value)) for value in values]
        overlap = sum(a * b for a, b in zip(p, truth))
        terms.append(
            1 - (2 * overlap + smooth) / (sum(p) + sum(truth) + smooth))
    return sum(terms) / len(terms)


@thorough
@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 6),
    st.sampled_from([0.5, 1., 10.]), seeds)
def test_dice_loss_matches_formula(b, h, w, smooth, seed):
    make = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(b, 1, h, w, generator=make)
    labels = torch.randint(0, 2, (b, h, w), generator=make)
    expected = pytest.approx(
        dice_by_formula(logits, labels, smooth), rel=1e-5, abs=1e-6)
    assert binary_dice_loss(logits, labels, smooth).item() == expected
    assert BinaryDiceLoss(smooth)(logits, labels).item() == expected


@thorough
@given(seeds, st.floats(0, 1))
def test_dice_loss_excludes_ignored_pixels(seed, ignored):
    make = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 1, 5, 6, generator=make)
    labels = random_labels((1, 5, 6), 2, ignored, seed)
    keep = labels != IGNORE
    value, grad = gradient(lambda x: BinaryDiceLoss()(x, labels), logits)
    assert value.item() == pytest.approx(
        dice_by_formula(logits[:, 0][keep][None], labels[keep][None], 1.),
        rel=1e-5, abs=1e-6)
    assert grad.isfinite().all()
    assert not grad[:, 0][~keep].any()


def test_dice_loss_excludes_pixels_of_weight_zero():
    logits, labels = torch.randn(2, 1, 5, 6), random_labels((2, 5, 6), 2, 0)
    weight = (torch.rand(2, 5, 6) < 0.5).float()
    expected = BinaryDiceLoss()(logits, labels.masked_fill(weight == 0, IGNORE))
    assert BinaryDiceLoss()(logits, labels, weight=weight) == expected
    assert BinaryDiceLoss()(logits, labels) != expected


def test_dice_loss_ignores_given_id():
    logits, labels = torch.randn(2, 1, 5, 6), random_labels((2, 5, 6), 2)
    other = labels.masked_fill(labels == IGNORE, 7)
    loss = BinaryDiceLoss()
    assert loss(logits, other, ignore_index=7) == loss(logits, labels)


@pytest.mark.parametrize('shape', [(2, 2, 4, 4), (2, 4, 4), (2, 1, 4)])
def test_dice_loss_rejects_wrong_shape(shape):
    with pytest.raises(ValueError, match=r'BinaryDiceLoss takes logits \(B, 1'):
        BinaryDiceLoss()(torch.zeros(shape), torch.zeros(2, 4, 4))


# --- Presence and semantic encoding ------------------------------------------


def presence_by_loops(labels, classes, ignore):
    target = torch.zeros(len(labels), classes, dtype=labels.dtype)
    for image, marks in zip(labels, target):
        for label in image.flatten().tolist():
            if 0 <= label < classes and label != ignore:
                marks[label] = 1
    return target


@thorough
@given(
    st.integers(1, 3), st.integers(1, 8), st.integers(1, 8),
    st.sampled_from([1, 2, 19, 150, 255, 256, 300]),
    st.sampled_from([IGNORE, None, 0, -1]),
    st.sampled_from([torch.int64, torch.int32, torch.int16]), seeds)
def test_presence_target_matches_loops(
        b, h, w, classes, ignore, dtype, seed):
    make = torch.Generator().manual_seed(seed)
    labels = torch.randint(-3, classes + 5, (b, h, w), generator=make)
    labels[torch.rand(b, h, w, generator=make) < 0.2] = IGNORE
    labels = labels.to(dtype)
    expected = presence_by_loops(labels, classes, ignore)
    got = presence_target(labels, classes, ignore)
    assert got.dtype == dtype
    assert torch.equal(got, expected)
    assert torch.equal(
        presence_target(labels.unsqueeze(1), classes, ignore), expected)


@pytest.mark.parametrize('classes', [1, 19, 150, 255, 256, 300])
def test_presence_target_accepts_uint8(classes):
    labels = random_labels((2, 9, 9), min(classes, 200)).byte()
    assert torch.equal(
        presence_target(labels, classes),
        presence_by_loops(labels, classes, IGNORE))


def test_presence_target_without_ignore_index_counts_255():
    labels = torch.full((1, 2, 2), 255)
    assert presence_target(labels, 300).sum() == 0
    assert presence_target(labels, 300, None).nonzero().tolist() == [[0, 255]]


def bce_by_formula(logits, target):
    p = logits.double().sigmoid()
    return -(target * p.log() + (1 - target) * (1 - p).log())


@thorough
@given(st.integers(1, 4), st.integers(1, 30), seeds)
def test_semantic_encoding_loss_matches_formula(
        b, classes, seed):
    make = torch.Generator().manual_seed(seed)
    logits = torch.randn(b, classes, generator=make)
    labels = random_labels((b, 6, 6), classes, seed=seed)
    presence = presence_by_loops(labels, classes, IGNORE)
    expected = pytest.approx(
        0.2 * bce_by_formula(logits, presence).mean().item(), rel=1e-5)
    loss = SemanticEncodingLoss()
    assert loss(logits, presence).item() == expected
    assert loss(logits, presence.float()).item() == expected
    assert loss(logits, labels).item() == expected
    assert loss(logits, labels.unsqueeze(1)).item() == expected


def test_semantic_encoding_loss_averages_the_logits_of_a_map():
    logits, labels = torch.randn(2, 5, 4, 6), random_labels((2, 8, 12), 5)
    loss = SemanticEncodingLoss(loss_weight=1.)
    pooled = loss(logits.mean((2, 3)), labels)
    value, grad = gradient(lambda x: loss(x, labels), logits)
    torch.testing.assert_close(value, pooled)
    assert torch.equal(grad, grad[:, :, :1, :1].expand_as(grad))
    assert grad.abs().min() > 0


def test_semantic_encoding_loss_ignores_given_id():
    labels = torch.tensor([[[0, 1], [2, 2]]])
    logits = torch.randn(1, 4)
    loss = SemanticEncodingLoss()
    assert loss(logits, labels, ignore_index=2) == loss(
        logits, torch.tensor([[1, 1, 0, 0]]))
    assert loss(logits, labels) == loss(logits, torch.tensor([[1, 1, 1, 0]]))


@pytest.mark.parametrize('shape', [(2, 4), (2, 4, 3, 3)])
def test_semantic_encoding_loss_applies_class_weights(shape):
    logits, labels = torch.randn(shape), random_labels((2, 6, 6), 4)
    weight = torch.tensor([0., 1., 2., 5.])
    pooled = logits.mean((2, 3)) if logits.dim() == 4 else logits
    terms = bce_by_formula(pooled, presence_target(labels, 4))
    got = SemanticEncodingLoss(1.)(logits, labels, weight=weight)
    assert got.item() == pytest.approx((terms * weight).mean().item(), rel=1e-5)


def test_semantic_encoding_loss_ignores_pixel_weights():
    logits, labels = torch.randn(2, 5, 6, 6), random_labels((2, 6, 6), 5)
    loss = SemanticEncodingLoss()
    assert loss(logits, labels, weight=torch.rand(2, 6, 6)) == loss(
        logits, labels)


@pytest.mark.parametrize('shape', [(5, ), (2, 5, 6), (2, 5, 6, 6, 6)])
def test_semantic_encoding_loss_rejects_wrong_rank(shape):
    with pytest.raises(ValueError, match='SemanticEncodingLoss takes logits'):
        SemanticEncodingLoss()(torch.zeros(shape), torch.zeros(2, 6, 6).long())


# --- Detail ------------------------------------------------------------------


def edges_by_loops(image, stride, threshold):
    """Threshold the Laplacian of a label map (H, W) at a stride, at full size."""
    h, w = image.shape
    rows, columns = -(-h // stride), -(-w // stride)
    edges = np.zeros((rows, columns), bool)
    for i in range(rows):
        for j in range(columns):
            total = 9 * image[i * stride, j * stride]
            for y in range(i * stride - 1, i * stride + 2):
                for x in range(j * stride - 1, j * stride + 2):
                    if 0 <= y < h and 0 <= x < w:
                        total -= image[y, x]
            edges[i, j] = total > threshold
    nearest_row = [y * rows // h for y in range(h)]
    nearest_column = [x * columns // w for x in range(w)]
    return edges[np.ix_(nearest_row, nearest_column)]


def detail_by_loops(labels, weights, threshold):
    """Fuse the edges in float32, where 0.1 > 0.1 is false."""
    target = np.zeros(labels.shape, np.float32)
    for image, fused in zip(labels.numpy(), target):
        for stride, weight in zip((1, 2, 4), weights):
            fused += np.float32(weight) * edges_by_loops(
                image, stride, threshold).astype(np.float32)
    return torch.from_numpy((target > np.float32(threshold)).astype('u1'))


@settings(thorough, max_examples=30)
@given(
    st.integers(1, 2), st.integers(1, 20), st.integers(1, 20),
    st.sampled_from([2, 5, 150]),
    st.sampled_from([
        (0.6, 0.3, 0.1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.2, 0.2, 0.2),
        (0.05, 0.03, 0.03)]),
    st.sampled_from([0.1, 0.25]), seeds)
def test_detail_target_matches_loops(
        b, h, w, classes, weights, threshold, seed):
    coarse = random_labels((b, -(-h // 3), -(-w // 3)), classes, seed=seed)
    labels = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :h, :w]
    got = detail_target(labels, weights, threshold)
    assert got.dtype == torch.uint8
    assert torch.equal(got, detail_by_loops(labels, weights, threshold))


def test_detail_target_omits_edges_at_stride_4_alone():
    labels = random_labels((2, 24, 32), 5)
    without = detail_target(labels, (0.6, 0.3, 0.))
    assert torch.equal(detail_target(labels), without)
    assert not torch.equal(detail_target(labels, (0.6, 0., 0.)), without)


def test_detail_target_marks_side_of_larger_id():
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[0, :, 4:] = 1
    inside = detail_target(labels, (1, 0, 0))[0, 2:6, 2:6]
    assert inside.tolist() == [[0, 0, 1, 0]] * 4


def test_detail_target_marks_image_border_unless_id_0():
    for label in (0, 1, IGNORE):
        target = detail_target(torch.full((1, 6, 6), label), (1, 0, 0))[0]
        assert target[1:-1, 1:-1].sum() == 0
        assert target.sum() == (0 if label == 0 else 20)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.int32])
def test_detail_target_accepts_any_integer_type(dtype):
    labels = random_labels((2, 24, 32), 19)
    assert torch.equal(detail_target(labels.to(dtype)), detail_target(labels))


@pytest.mark.parametrize('classes', [19, 600])
def test_detail_target_is_equal_under_autocast(classes):
    labels = random_labels((2, 24, 32), classes)
    plain = detail_target(labels)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(detail_target(labels), plain)


@pytest.mark.parametrize('size', [(24, 32), (3, 4), (13, 7)])
def test_detail_loss_matches_formula(size):
    logits, labels = torch.randn(2, 1, *size), random_labels((2, 24, 32), 5)
    resized = F.interpolate(
        logits, (24, 32), mode='bilinear', align_corners=True)
    target = detail_target(labels)
    bce = bce_by_formula(resized[:, 0], target).mean().item()
    dice = dice_by_formula(resized, target, 1.)
    loss = DetailAggregateLoss()
    got = [value.item() for value in loss.components(logits, labels)]
    assert got == pytest.approx([bce, dice], rel=1e-5)
    assert loss(logits, labels).item() == pytest.approx(bce + dice, rel=1e-5)


def test_detail_loss_applies_term_weights():
    logits, labels = torch.randn(2, 1, 6, 8), random_labels((2, 24, 32), 5)
    bce, dice = DetailAggregateLoss().components(logits, labels)
    loss = DetailAggregateLoss(bce_weight=3., dice_weight=5., loss_weight=0.5)
    got = loss.components(logits, labels)
    torch.testing.assert_close(got, (1.5 * bce, 2.5 * dice))
    torch.testing.assert_close(loss(logits, labels), 1.5 * bce + 2.5 * dice)


def test_detail_loss_arguments_reach_target_and_dice():
    logits, labels = torch.randn(2, 1, 24, 32), random_labels((2, 24, 32), 5)
    loss = DetailAggregateLoss((0.3, 0.3, 0.3), threshold=0.5, smooth=20.)
    target = detail_target(labels, (0.3, 0.3, 0.3), 0.5)
    assert loss.components(logits, labels)[1].item() == pytest.approx(
        dice_by_formula(logits, target, 20.), rel=1e-5)


def neighbours(image, y, x):
    """Return the ids of a 3x3 neighbourhood inside the image."""
    return image[max(y - 1, 0):y + 2, max(x - 1, 0):x + 2].flatten().tolist()


@pytest.mark.parametrize('ignore_index', [None, IGNORE])
def test_detail_edges_permutation_invariant_matches_loops(ignore_index):
    labels = random_labels((2, 9, 11), 3, ignored=0.1)
    edges, _, _ = detail_edges(
        labels, ignore_index=ignore_index, permutation_invariant=True)
    for image, found in zip(labels, edges):
        for y, x in np.ndindex(*image.shape):
            ids = {i for i in neighbours(image, y, x) if i != ignore_index}
            differ = len(ids) > 1 and image[y, x] != ignore_index
            assert found[y, x] == differ


def test_detail_target_permutation_invariant_ignores_order_of_ids():
    labels = random_labels((2, 30, 20), 150).div(40, rounding_mode='floor')
    other = torch.randperm(256)[labels]
    invariant = detail_target(labels, permutation_invariant=True)
    assert torch.equal(invariant, detail_target(other, permutation_invariant=True))
    assert not torch.equal(detail_target(labels), detail_target(other))


def test_detail_target_permutation_invariant_marks_both_sides():
    labels = torch.full((1, 8, 8), 60000)
    labels[0, :, 4:] = 60001
    target = detail_target(labels, (1, 0, 0), permutation_invariant=True)[0]
    assert target.tolist() == [[0, 0, 0, 1, 1, 0, 0, 0]] * 8


def test_detail_edges_with_ignore_index_omit_image_border():
    labels = torch.full((1, 8, 8), 5)
    labels[0, 2:4, 3:6] = IGNORE
    assert detail_target(labels, ignore_index=IGNORE).sum() == 0
    labels[0, 6:] = 7
    edges = detail_edges(labels, ignore_index=IGNORE)
    assert edges[0].nonzero()[:, 1].unique().tolist() == [6]


def test_detail_edges_with_ignore_index_omit_ignored_pixels():
    labels = random_labels((2, 24, 32), 5)
    for edges in detail_edges(labels, ignore_index=IGNORE):
        assert edges[labels != IGNORE].any()
        assert not edges[labels == IGNORE].any()


def test_detail_edges_are_uint8_maps_of_label_size():
    for edges in detail_edges(random_labels((2, 13, 7), 5)):
        assert edges.dtype == torch.uint8 and edges.shape == (2, 13, 7)
        assert edges.max() == 1


def test_detail_loss_excludes_ignored_pixels():
    logits, labels = torch.randn(2, 1, 24, 32), random_labels((2, 24, 32), 5)
    keep = labels != IGNORE
    target = detail_target(labels, ignore_index=IGNORE)
    bce, dice = DetailAggregateLoss(ignore_index=IGNORE).components(
        logits, labels)
    assert bce.item() == pytest.approx(
        bce_by_formula(logits[:, 0][keep], target[keep].float()).mean().item(),
        rel=1e-5)
    expected = [dice_by_formula(one[0][k][None], t[k][None].float(), 1.)
                for one, t, k in zip(logits, target, keep)]
    assert dice.item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    _, grad = gradient(
        lambda x: DetailAggregateLoss(ignore_index=IGNORE)(x, labels), logits)
    assert (grad[:, 0][~keep] == 0).all() and (grad[:, 0][keep] != 0).any()


def test_detail_loss_of_ignored_pixels_is_zero():
    labels = torch.full((2, 8, 8), IGNORE)
    value, grad = gradient(
        lambda x: DetailAggregateLoss(ignore_index=IGNORE)(x, labels),
        torch.randn(2, 1, 8, 8))
    assert value == 0 and (grad == 0).all()


def test_learn_fusion_initial_weights_are_normalised():
    labels = random_labels((2, 24, 32), 5)
    loss = DetailAggregateLoss((1.2, 0.6, 0.2), learn_fusion=True)
    fine, middle, coarse = detail_edges(labels)
    torch.testing.assert_close(
        loss.target(labels).detach(), 0.6 * fine + 0.3 * middle + 0.1 * coarse)


def test_learn_fusion_increases_weight_of_predicted_stride():
    labels = random_labels((2, 8, 8), 3, ignored=0).repeat_interleave(
        4, 1).repeat_interleave(4, 2)
    loss = DetailAggregateLoss(learn_fusion=True)
    coarse = detail_edges(labels)[2]
    logits = (8. * coarse - 4).unsqueeze(1)
    optimizer = torch.optim.SGD(loss.parameters(), lr=5.)
    before = loss.fusion_logits.softmax(0)[2].item()
    for _ in range(50):
        optimizer.zero_grad()
        loss(logits, labels).backward()
        optimizer.step()
    assert before < 0.11 and loss.fusion_logits.softmax(0)[2] > 0.8


def test_detail_loss_without_learn_fusion_has_no_parameters():
    assert not list(DetailAggregateLoss().parameters())


@pytest.mark.parametrize('weights', [(0.6, 0.3, 0), (1, -1, 1)])
def test_learn_fusion_rejects_nonpositive_weights(weights):
    with pytest.raises(ValueError, match='fusion_weights must be positive'):
        DetailAggregateLoss(weights, learn_fusion=True)


@pytest.mark.parametrize('weights', [(), (1, ), (0.5, 0.5), (1, 1, 1, 1)])
def test_detail_loss_rejects_wrong_number_of_weights(weights):
    with pytest.raises(ValueError, match='fusion_weights must be three'):
        DetailAggregateLoss(fusion_weights=weights)


@pytest.mark.parametrize('shape', [(2, 2, 8, 8), (2, 8, 8), (2, 19, 8, 8)])
def test_detail_loss_rejects_wrong_shape(shape):
    with pytest.raises(ValueError, match='DetailAggregateLoss takes logits'):
        DetailAggregateLoss()(torch.zeros(shape), torch.zeros(2, 8, 8).long())


# --- All losses --------------------------------------------------------------

LOSSES = {
    'OhemCELoss': (OhemCELoss, 'loss_ohem', 4),
    'BinaryDiceLoss': (BinaryDiceLoss, 'loss_bdice', 1),
    'DetailAggregateLoss': (DetailAggregateLoss, 'loss_detail', 1),
    'SemanticEncodingLoss': (SemanticEncodingLoss, 'loss_se', 4),
}


def fcn_head(loss_decode, classes, **kwargs):
    assert FCNHead.__module__ == 'mmseg.models.decode_heads.fcn_head'
    return FCNHead(
        in_channels=6, channels=6, num_convs=1, concat_input=False,
        num_classes=classes, threshold=0.5, dropout_ratio=0.,
        loss_decode=loss_decode, **kwargs)


@pytest.mark.parametrize('name', LOSSES)
def test_registry_builds_each_loss(name):
    built = MODELS.build(dict(type=name))
    cls, loss_name, _ = LOSSES[name]
    assert type(built) is cls
    assert built.loss_name == loss_name


@pytest.mark.parametrize('name', LOSSES)
def test_losses_train_a_stock_head(name):
    classes = LOSSES[name][2]
    head = fcn_head(dict(type=name, loss_name='loss_mine'), classes)
    labels = random_labels((2, 16, 24), max(classes, 2))
    logits = head([torch.randn(2, 6, 4, 6)])
    losses = head.loss_by_feat(logits, samples(labels))
    assert losses.keys() == {'loss_mine', 'acc_seg'}
    resized = F.interpolate(logits, (16, 24), mode='bilinear')
    torch.testing.assert_close(
        losses['loss_mine'], LOSSES[name][0]()(resized, labels))
    losses['loss_mine'].backward()
    for parameter in head.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize('name', LOSSES)
def test_losses_combine_with_another_in_a_stock_head(name):
    classes = LOSSES[name][2]
    head = fcn_head(
        [dict(type='CrossEntropyLoss', use_sigmoid=classes == 1),
         dict(type=name)], classes)
    logits, labels = torch.randn(2, classes, 8, 8), random_labels((2, 8, 8), 2)
    losses = head.loss_by_feat(logits, samples(labels))
    cls, loss_name, _ = LOSSES[name]
    torch.testing.assert_close(losses[loss_name], cls()(logits, labels))
    assert losses['loss_ce'] > 0


@pytest.mark.parametrize('name', ['OhemCELoss', 'BinaryDiceLoss'])
def test_pixel_losses_use_ignore_index_of_head(name):
    classes = LOSSES[name][2]
    head = fcn_head(dict(type=name), classes, ignore_index=77)
    logits, labels = torch.randn(2, classes, 8, 8), random_labels((2, 8, 8), 2)
    marked = labels.masked_fill(labels == IGNORE, 77)
    losses = head.loss_by_feat(logits, samples(marked))
    cls, loss_name, _ = LOSSES[name]
    torch.testing.assert_close(losses[loss_name], cls()(logits, labels))


@pytest.mark.parametrize('name', LOSSES)
def test_losses_scale_with_loss_weight(name):
    cls, _, channels = LOSSES[name]
    logits = torch.randn(2, channels, 8, 8)
    labels = random_labels((2, 8, 8), 2)
    torch.testing.assert_close(
        cls(loss_weight=3.)(logits, labels),
        3 * cls(loss_weight=1.)(logits, labels))


@pytest.mark.parametrize('name', LOSSES)
def test_losses_reject_name_without_loss(name):
    with pytest.raises(ValueError, match="loss_name must contain 'loss'.*ohem"):
        LOSSES[name][0](loss_name='ohem')


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', LOSSES)
def test_losses_of_half_precision_logits_match_float32(name, dtype):
    cls, _, channels = LOSSES[name]
    logits = (2 + torch.randn(1, channels, 300, 300)).to(dtype)
    labels = torch.ones(1, 300, 300, dtype=torch.int64)  # sums above 65504
    expected = cls()(logits.float(), labels)
    assert cls()(logits, labels).item() == pytest.approx(
        expected.item(), rel=1e-4)
