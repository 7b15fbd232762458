"""Run the Triton kernels of the upsampled cross entropy by Triton's interpreter."""
import pytest
import torch
import torch.nn.functional as F
from cross_entropy_cases import IGNORE, assert_agree, draw, error
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted_kernels import interpreted, interpreter
from operator_cases import TYPES

from mmseg_encstdc.ops.upsampled_cross_entropy import bands

LAYOUTS = {  # of (B, C, h, w)
    'contiguous': lambda x: x.contiguous(),
    'channels_last': lambda x: x.to(memory_format=torch.channels_last),
    'sliced columns': lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    'sliced channels': lambda x: torch.cat([x, x], 1)[:, :x.size(1)],
    'transposed': lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
}
LABEL_TYPES = (torch.int64, torch.int32, torch.int16, torch.uint8)


@pytest.fixture(scope='module')
def kernels():
    module = interpreted('upsampled_cross_entropy')
    with interpreter():
        yield module


@pytest.fixture(scope='module')
def compute(kernels):
    """Return a function that computes losses, hits, logsumexp and gradient."""
    def compute(inputs, align_corners=False, ignore_index=IGNORE):
        logits, labels, grad = inputs
        assert kernels.why_not(logits, labels) is None
        got = kernels.forward(logits, labels, align_corners, ignore_index)
        return [*got, kernels.backward(grad, logits, labels, got[2], align_corners,
                                       ignore_index)]

    return compute


def weights(inputs, outputs, align_corners):
    """Return PyTorch's float32 weights (outputs, inputs), as float64."""
    return F.interpolate(
        torch.eye(inputs).view(1, 1, inputs, inputs), (outputs, inputs),
        mode='bilinear', align_corners=align_corners)[0, 0].double()


def upsampled(logits, size, align_corners):
    """Upsample logits with these weights in float64, (B, C, H, W)."""
    rows, columns = (weights(inputs, outputs, align_corners)
                     for inputs, outputs in zip(logits.shape[2:], size))
    return torch.einsum('yi,bcij,xj->bcyx', rows, logits.double(), columns)


def by_bands(inputs, align_corners=False, ignore_index=IGNORE):
    """Return what ``compute`` returns, computed by the bands in float64."""
    logits, labels, grad = inputs
    got = bands.forward(logits.double(), labels, align_corners, ignore_index)
    return [*got, bands.backward(grad.double(), logits.double(), labels, got[2],
                                 align_corners, ignore_index)]


def assert_near(got, right, values=5e-6, gradient=2e-5):
    """Compare with the bands, whose weights are not rounded to float32."""
    assert error(got[0], right[0]) <= values and error(got[2], right[2]) <= values
    assert torch.equal(got[1], right[1])
    assert error(got[3], right[3]) <= gradient


# The interpreter takes many milliseconds for a program of the kernels.
SIZES = st.tuples(  # batch, classes, height and width, then of the labels
    st.integers(1, 2), st.integers(1, 12), st.integers(1, 5), st.integers(1, 9),
    st.integers(1, 8), st.integers(1, 16))
MANY_CLASSES = st.tuples(
    st.just(1), st.integers(90, 171), st.just(1), st.integers(1, 4),
    st.integers(1, 3), st.integers(1, 4))
MANY_COLUMNS = st.tuples(
    st.just(1), st.integers(1, 8), st.just(1), st.integers(65, 90),
    st.integers(1, 2), st.integers(129, 150))


@settings(max_examples=15, deadline=None)
@given(
    SIZES | MANY_CLASSES | MANY_COLUMNS, st.sampled_from(TYPES),
    st.sampled_from(list(LAYOUTS)), st.sampled_from(LABEL_TYPES), st.booleans(),
    st.integers(0, 2**16))
def test_kernels_match_formula(
        compute, sizes, dtype, layout, label_type, align_corners, seed):
    logits, labels, grad = draw(*sizes, dtype, seed, ignored=0.2)
    if label_type == torch.int16:
        labels[labels == IGNORE] = -7
    inputs = LAYOUTS[layout](logits), labels.to(label_type), grad
    got = compute(inputs, align_corners, -7 if label_type == torch.int16 else IGNORE)
    labels[labels == -7] = IGNORE
    assert_agree(got, (logits, labels, grad), align_corners, upsampled)
    assert got[0].dtype == got[2].dtype == torch.float32
    assert got[3].is_contiguous()


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('shape', [
    (1, 19, 2, 3, 8, 12), (1, 5, 4, 3, 17, 17), (2, 3, 1, 3, 2, 290),
    (1, 3, 2, 70, 4, 140), (1, 4, 3, 5, 3, 5), (1, 3, 9, 21, 4, 5),
    (1, 7, 1, 1, 3, 9), (1, 2, 2, 2, 4, 4), (1, 4, 1, 1, 1, 1)])
def test_kernels_match_bands(compute, shape, align_corners):
    inputs = draw(*shape)
    assert_near(compute(inputs, align_corners), by_bands(inputs, align_corners))


@pytest.fixture(scope='module')
def example(compute):
    """Return inputs with labels four times the size, and the computed outputs."""
    inputs = draw(1, 5, 4, 5, 16, 20)
    return inputs, compute(inputs)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_kernels_layout_changes_no_bit(compute, example, layout):
    (logits, labels, grad), expected = example
    got = compute((LAYOUTS[layout](logits), labels.transpose(1, 2).contiguous()
                   .transpose(1, 2), LAYOUTS[layout](grad[None])[0]))
    for mine, right in zip(got, expected):
        assert torch.equal(mine, right)


def test_kernels_batch_changes_no_bit(compute):
    logits, labels, grad = draw(2, 5, 2, 4, 7, 13)
    for mine, right in zip(compute((logits[1:2], labels[1:2], grad[1:2])),
                           compute((logits, labels, grad))):
        assert torch.equal(mine[0], right[1])


def test_backward_takes_broadcast_gradient(kernels, example):
    (logits, labels, _), (_, _, logsumexp, _) = example
    one = torch.tensor(0.25).expand(labels.shape)
    assert torch.equal(*(
        kernels.backward(grad, logits, labels, logsumexp, False, IGNORE)
        for grad in (one, one.contiguous())))


def test_backward_copies_gradient_of_large_span(kernels, example, monkeypatch):
    (logits, labels, grad), (_, _, logsumexp, expected) = example
    monkeypatch.setattr(kernels, 'MAX_ELEMENTS', grad.numel())
    wide = LAYOUTS['sliced columns'](grad[None])[0]
    assert torch.equal(expected, kernels.backward(
        wide, logits, labels, logsumexp, False, IGNORE))


def test_kernels_ignored_labels_give_zero(compute):
    logits, labels, _ = draw(1, 4, 3, 5, 10, 19)
    labels.fill_(IGNORE)
    grad = torch.full(labels.shape, float('nan'))
    losses, hits, logsumexp, grad_logits = compute((logits, labels, grad))
    assert (losses == 0).all() and not hits.any() and (grad_logits == 0).all()
    assert not logsumexp.isnan().any()


def test_backward_ignores_gradient_of_ignored_labels(compute):
    logits, labels, grad = draw(1, 4, 3, 5, 10, 19, ignored=0.5)
    expected = compute((logits, labels, grad))[3]
    grad[labels == IGNORE] = float('inf')
    assert torch.equal(compute((logits, labels, grad))[3], expected)


@pytest.mark.parametrize('ignore_index', [-100, 3, 1])
def test_kernels_take_other_ignore_index(compute, ignore_index):
    inputs = draw(1, 5, 3, 5, 9, 19, ignored=0)
    inputs[1][:, ::3] = ignore_index
    assert_near(compute(inputs, ignore_index=ignore_index),
                by_bands(inputs, ignore_index=ignore_index))


@pytest.mark.parametrize('label, label_type', [
    (-1, torch.int16), (5, torch.uint8), (254, torch.uint8), (-100, torch.int32),
    (2**40, torch.int64), (-2**40 + 1, torch.int64), (2**32, torch.int64)])
def test_kernels_label_without_class_gives_nan(compute, example, label, label_type):
    (logits, labels, grad), expected = example
    labels = labels.clone()
    labels[0, 7, 11] = label
    got = compute((logits, labels.to(label_type), grad))
    there = torch.zeros_like(labels, dtype=torch.bool)
    there[0, 7, 11] = True
    around = torch.zeros_like(logits, dtype=torch.bool)
    around[0, :, 1:3, 2:4] = True  # the four logits, of all classes
    assert got[0][there].isnan().all() and not got[1][there].any()
    assert got[3][around].isnan().all()
    assert torch.equal(got[2], expected[2])
    for mine, right, other in zip(got, expected, (there, there, there, around)):
        assert torch.equal(mine[~other], right[~other])


@pytest.mark.filterwarnings('ignore:overflow encountered')  # finfo.min in log2 units
@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('mask', ['-inf', 'finfo.min'])
def test_kernels_match_bands_with_masked_classes(compute, mask, dtype):
    logits, labels, grad = draw(1, 11, 2, 4, 9, 13, dtype)
    value = torch.finfo(dtype).min if mask == 'finfo.min' else float('-inf')
    logits[:, 8:] = value  # the last block of classes has no other
    logits[:, 0] = value
    labels = labels.where(labels == IGNORE, labels % 7 + 1)
    got = compute((logits, labels, grad))
    right = by_bands((logits, labels, grad))
    assert (got[3][:, 8:] == 0).all()
    assert_near(got, right, gradient=2e-5 if dtype == torch.float32 else 5e-3)


def test_kernels_plus_infinity_gives_nan(compute):
    logits, labels, grad = draw(1, 4, 3, 3, 12, 12, ignored=0)
    logits[:, 2] = float('inf')
    losses, hits, _, grad_logits = compute((logits, labels, grad))
    assert losses.isnan().all() and not hits.any() and grad_logits.isnan().all()


@pytest.mark.parametrize('scale', [2, 0.5])
def test_kernels_nan_stays_around_its_logit(compute, scale):
    logits, labels, grad = draw(1, 2, 8, 10, int(8 * scale), int(10 * scale),
                                ignored=0)
    expected = compute((logits, labels, grad))
    logits[0, 1, 4, 6] = float('nan')
    got = compute((logits, labels, grad))
    touched = F.interpolate(logits, labels.shape[1:], mode='bilinear')[:, 1].isnan()
    assert 0 < touched.sum() < touched.numel() / 2
    assert got[0][touched].isnan().all() and got[2][touched].isnan().all()
    assert not got[1][touched].any()
    for mine, right in zip(got[:3], expected):
        assert torch.equal(mine[~touched], right[~touched])
    far = torch.ones_like(logits, dtype=torch.bool)
    far[..., 2:7, 4:9] = False
    assert torch.equal(got[3][far], expected[3][far])
    if scale < 1:  # a cell without labels gives 0, not NaN
        assert not got[3][0, :, :4].isnan().any()


@pytest.mark.parametrize('width', [30, 1e3, 1e4])
def test_kernels_match_formula_with_large_logits(compute, width):
    inputs = draw(1, 9, 3, 3, 13, 20, width=width)
    got = compute(inputs)
    assert not any(value.isnan().any() for value in got)
    # The exponential of a rounded logit is off by as much.
    assert_agree(got, inputs, False, upsampled, gradient=max(1e-5, 3e-7 * width))


@pytest.mark.parametrize('height', [100, 1e4])
def test_kernels_match_formula_with_far_maxima_of_neighbours(compute, height):
    # Each logit has a class of its own far above; half way all are far below.
    logits, labels, grad = draw(1, 9, 4, 5, 16, 20, ignored=0)
    owner = torch.randint(9, logits[:, :1].shape)
    logits.scatter_add_(1, owner, torch.full(owner.shape, float(height)))
    inputs = logits, labels, grad
    assert_agree(compute(inputs), inputs, False, upsampled,
                 gradient=max(1e-5, 3e-7 * height))


def test_forward_equal_classes_are_hits(kernels):
    logits, labels, _ = draw(1, 13, 3, 5, 9, 20, ignored=0)
    logits = logits[:, :1].expand_as(logits)
    losses, hits, _ = kernels.forward(logits, labels, False, IGNORE)
    assert hits.all()
    assert (losses - torch.tensor(13.).log()).abs().max() < 1e-6


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('inputs, outputs', [
    (64, 512), (65, 513), (13, 100), (7, 7), (1, 9), (9, 10), (128, 1024), (5, 1),
    (100, 13)])
def test_axis_is_interpolates(kernels, inputs, outputs, align_corners):
    axis = kernels._axis(inputs, outputs, align_corners, torch.device('cpu'))
    before = axis.before.long()
    after = (before + 1).clamp(max=inputs - 1)
    matrix = torch.zeros(outputs, inputs)
    matrix[torch.arange(outputs), before] = 1 - axis.weight
    matrix[torch.arange(outputs), after] += axis.weight
    assert torch.equal(matrix.double(), weights(inputs, outputs, align_corners))
    for cell in range(inputs):
        first, last = axis.first[cell:cell + 2]
        assert torch.equal((before == cell).nonzero().flatten(),
                           torch.arange(first, last))
    assert outputs / inputs <= axis.cell_size < max(2, 2 * outputs / inputs)


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device='meta')


@pytest.mark.parametrize('logits, labels, reason', [
    (meta(1, 3, 4, 4, dtype=torch.float64), meta(1, 8, 8), 'the logits are float64'),
    (meta(1, 1, 1, 1).expand(70000, 3, 4, 4), meta(1).expand(70000, 8, 8), 'images'),
    (meta(1, 2**20, 64, 64), meta(1, 64, 64), 'elements'),
    (meta(1, 3, 4, 4), meta(1, 2**16, 2**16), 'elements'),
    (meta(1, 3, 4, 4), meta(1).expand(1, 2**16, 2**16), 'elements'),
    (meta(1, 4, 4, 2**28).transpose(1, 3)[:, :3], meta(1, 8, 8), 'elements')])
def test_why_not_names_reason(kernels, logits, labels, reason):
    assert reason in kernels.why_not(logits, labels)


@pytest.mark.parametrize('dtype', TYPES)
def test_why_not_accepts_large_batches(kernels, dtype):
    logits = meta(64, 150, 128, 128, dtype=dtype)
    assert kernels.why_not(logits, meta(64, 1024, 1024, dtype=torch.uint8)) is None
