"""The kernels of the cross entropy, run thread by thread on a processor."""
import pytest
import torch
import torch.nn.functional as F
from cross_entropy_cases import (
    IGNORE,
    SHAPES,
    assert_agree,
    draw,
    formula,
    weights,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import TYPES


@pytest.fixture
def compute(cross_entropy):
    """Losses, hits, normaliser and the gradient of the logits."""
    def compute(inputs, align_corners=False, seed=0):
        logits, labels, grad = inputs
        got = cross_entropy.forward(logits, labels, align_corners, IGNORE, seed)
        slope = cross_entropy.backward(grad, logits, labels, got[2],
                                       align_corners, IGNORE, seed)
        return [*got, slope]

    return compute


def by_interpolate(logits, size, align_corners):
    return F.interpolate(
        logits, size=size, mode='bilinear', align_corners=align_corners)


@settings(max_examples=80)
@given(
    st.integers(1, 2), st.integers(2, 40), st.integers(1, 9), st.integers(1, 12),
    st.integers(0, 60), st.integers(0, 150), st.sampled_from(TYPES), st.booleans(),
    st.booleans(), st.integers(0, 2**16))
def test_any_shape_and_type_is_the_formula(
        cross_entropy, batch, channels, rows, columns, more_rows, more_columns,
        dtype, align_corners, byte_labels, seed):
    logits, labels, grad = draw(batch, channels, rows, columns, rows + more_rows,
                                columns + more_columns, dtype, seed)
    labels = labels.byte() if byte_labels else labels
    got = cross_entropy.forward(logits, labels, align_corners, IGNORE, seed)
    slope = cross_entropy.backward(grad, logits, labels, got[2], align_corners,
                                   IGNORE, seed)
    assert_agree([*got, slope], (logits, labels, grad), align_corners)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('shape', SHAPES)
def test_shapes_of_every_kind_are_the_formula(compute, shape, align_corners):
    inputs = draw(*SHAPES[shape])
    assert_agree(compute(inputs, align_corners), inputs, align_corners)


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('align_corners', [False, True])
def test_types_are_the_formula(compute, align_corners, dtype):
    for shape in ('eight times', 'odd'):
        inputs = draw(*SHAPES[shape], dtype)
        assert_agree(compute(inputs, align_corners), inputs, align_corners)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('shape', SHAPES)
def test_it_is_pytorchs_cross_entropy_of_interpolate(compute, shape, align_corners):
    # In float64, whose sources of odd sizes differ by the rounding of float32.
    inputs = draw(*SHAPES[shape])
    assert_agree(compute(inputs, align_corners), inputs, align_corners,
                 by_interpolate, values=5e-6, gradient=2e-5)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('inputs, outputs', [
    (64, 512), (65, 513), (13, 100), (7, 7), (1, 9), (9, 10), (128, 1024), (5, 1)])
def test_the_formulas_weights_are_interpolates(inputs, outputs, align_corners):
    right = by_interpolate(
        torch.eye(inputs)[None, :, None], (1, outputs), align_corners)[0, :, 0].T
    difference = weights(inputs, outputs, align_corners) - right
    assert difference.abs().max() <= inputs * 2**-22


def test_nothing_but_ignored_labels_gives_zero(compute):
    logits, labels, _ = draw(*SHAPES['odd'])
    labels.fill_(IGNORE)
    grad = torch.full(labels.shape, float('nan'))  # must not be asked for
    losses, hits, normaliser, slope = compute((logits, labels, grad))
    assert (losses == 0).all() and not hits.any() and (slope == 0).all()
    assert not normaliser.isnan().any()


def test_the_gradient_of_ignored_labels_is_not_read(compute):
    logits, labels, grad = draw(*SHAPES['eight times'], ignored=0.5)
    expected = compute((logits, labels, grad))[3]
    grad[labels == IGNORE] = float('inf')
    assert torch.equal(compute((logits, labels, grad))[3], expected)


@pytest.mark.parametrize('ignore', [-100, 3])
def test_another_label_may_be_the_ignored_one(cross_entropy, ignore):
    logits, labels, grad = draw(*SHAPES['odd'], ignored=0)
    labels[:, ::3] = ignore
    losses, hits, normaliser = cross_entropy.forward(
        logits, labels, ignore_index=ignore)
    slope = cross_entropy.backward(grad, logits, labels, normaliser,
                                   ignore_index=ignore)
    labels[labels == ignore] = IGNORE
    assert_agree([losses, hits, normaliser, slope], (logits, labels, grad), False)


@pytest.mark.parametrize('wrong', [-1, 19, 254, 2**40, -2**40])
def test_a_label_without_a_class_gives_nan_where_it_is(compute, wrong):
    logits, labels, grad = draw(*SHAPES['eight times'])
    expected = compute((logits, labels, grad))
    labels[1, 30, 50] = wrong
    losses, hits, normaliser, slope = compute((logits, labels, grad))
    there = torch.zeros_like(labels, dtype=torch.bool)
    there[1, 30, 50] = True
    assert losses[there].isnan().all() and not hits[there].any()
    assert torch.equal(losses[~there], expected[0][~there])
    assert torch.equal(hits[~there], expected[1][~there])
    assert torch.equal(normaliser, expected[2])
    # The four logits around it, of all classes, and no other.
    around = torch.zeros_like(slope, dtype=torch.bool)
    around[1, :, 3:5, 5:7] = True
    assert slope[around].isnan().all()
    assert torch.equal(slope[~around], expected[3][~around])


def test_nan_reaches_the_labels_around_it_and_no_other(compute):
    logits, labels, grad = draw(*SHAPES['eight times'], ignored=0)
    expected = compute((logits, labels, grad))
    logits[0, 3, 4, 6] = float('nan')
    losses, hits, normaliser, _ = compute((logits, labels, grad))
    rows, columns = (torch.arange(size) for size in labels.shape[1:])
    there = torch.zeros_like(labels, dtype=torch.bool)
    there[0] = (((rows - 35.5).abs() < 8)[:, None] & ((columns - 51.5).abs() < 8))
    assert losses[there].isnan().all() and normaliser[there].isnan().all()
    assert not hits[there].any()
    for mine, right in zip((losses, hits, normaliser), expected):
        assert torch.equal(mine[~there], right[~there])


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('shape', ['eight times', 'odd', 'four times'])
@pytest.mark.parametrize('width', [30, 300, 1e4])
def test_large_logits_are_the_formula(compute, width, shape, align_corners):
    inputs = draw(*SHAPES[shape], width=width)
    got = compute(inputs, align_corners)
    assert not any(value.isnan().any() for value in got)
    # An exponential of a rounded logit is off by as much.
    assert_agree(got, inputs, align_corners, gradient=max(1e-5, 3e-7 * width))


@pytest.mark.parametrize('shape', ['eight times', 'odd'])
def test_far_maxima_of_neighbours_are_the_formula(compute, shape):
    # Each logit has a class of its own far above; half way all are far below.
    logits, labels, grad = draw(*SHAPES[shape], ignored=0)
    owner = torch.randint(logits.size(1), logits[:, :1].shape)
    for height in (20, 100, 1e4):
        inputs = (logits.scatter_add(
            1, owner, torch.full(owner.shape, float(height))), labels, grad)
        assert_agree(compute(inputs), inputs, False,
                     gradient=max(1e-5, 3e-7 * height))


def test_a_common_offset_costs_no_more_than_its_rounding(compute):
    logits, labels, grad = draw(*SHAPES['eight times'])
    logits = (logits * 256).round() / 256 + 4096  # without rounding
    inputs = (logits, labels, grad)
    losses, _, _, slope = compute(inputs)
    right = formula(*inputs, False)
    assert (losses - right[0]).abs().max() < 2e-5
    assert (slope - right[2]).abs().max() < 1e-3 * right[2].abs().max()


@pytest.mark.parametrize('shape', ['eight times', 'odd', 'the same size'])
def test_equal_classes_are_all_hits(compute, shape):
    logits, labels, grad = draw(*SHAPES[shape], ignored=0)
    logits = logits[:, :1].expand_as(logits).contiguous()
    losses, hits, _, _ = compute((logits, labels, grad))
    assert hits.all()
    assert (losses - torch.tensor(float(logits.size(1))).log()).abs().max() < 1e-6


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('shape', ['eight times', 'odd', 'several tiles'])
def test_the_order_of_the_threads_changes_no_bit(compute, shape, dtype):
    inputs = draw(*SHAPES[shape], dtype)
    first = compute(inputs, seed=0)
    for seed in range(1, 5):
        for mine, theirs in zip(compute(inputs, seed=seed), first):
            assert torch.equal(mine, theirs)


# Of the two networks: EncNet on ADE20K, STDC-Seg on Cityscapes.
NETWORKS = {'EncNet': (4, 150, 64, 64, 512, 512),
            'STDC-Seg': (12, 19, 64, 128, 512, 1024)}


@pytest.mark.parametrize('network', NETWORKS)
def test_memory_beside_the_results_is_a_part_of_the_upsampled(cross_entropy, network):
    batch, channels, rows, columns, *size = NETWORKS[network]
    logits = torch.empty(batch, channels, rows, columns, device='meta')
    labels = torch.empty(batch, *size, device='meta')
    assert cross_entropy.plan(logits, labels, False).workspace == 0
    plan = cross_entropy.plan(logits, labels, True)
    assert (plan.strip, plan.groups) == (8, 1)
    assert plan.workspace < 0.04 * 4 * batch * channels * size[0] * size[1]


@pytest.mark.parametrize('channels', [1, 2, 19, 150, 1000, 5000])
@pytest.mark.parametrize('columns', [1, 17, 64, 65, 90, 128, 300])
def test_a_plan_keeps_to_shared_memory(cross_entropy, channels, columns):
    for more in (0, 1, 30, 7 * columns):
        logits = torch.empty(1, channels, 4, columns, device='meta')
        labels = torch.empty(1, 32, columns + more, device='meta')
        for backward in (False, True):
            for align_corners in (False, True):
                plan = cross_entropy.plan(logits, labels, backward, align_corners)
                assert plan.bytes <= 48 * 1024 and plan.chunk >= 1


@pytest.mark.parametrize('logits, labels', [
    ((1, 3, 5, 5), (1, 4, 9)), ((1, 3, 5, 5), (1, 9, 4)), ((0, 3, 5, 5), (0, 9, 9)),
    ((1, 3, 5, 0), (1, 9, 9)), ((1, 2**20, 64, 64), (1, 64, 64)),
    ((2**20, 3, 5, 5), (2**20, 2**14, 2**14))])
def test_what_the_kernels_do_not_take_has_no_plan(cross_entropy, logits, labels):
    logits = torch.empty(logits, device='meta')
    labels = torch.empty(labels, device='meta')
    assert cross_entropy.plan(logits, labels, False) is None
    assert cross_entropy.plan(logits, labels, True) is None
