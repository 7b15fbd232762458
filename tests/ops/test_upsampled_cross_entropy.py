"""Compare upsampled_cross_entropy() with F.cross_entropy of F.interpolate."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from mmseg_encstdc.ops import (
    upsampled_cross_entropy,
    upsampled_cross_entropy_reference,
)
from mmseg_encstdc.ops.upsampled_cross_entropy import bands

IGNORE = 255
thorough = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 2**16)
low = st.integers(1, 9)
high = st.integers(1, 40)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 8), low, low, high, high)


def draw(shape, seed=0, dtype=torch.float64, ignored=0.2):
    """Draw logits (B, C, h, w) and labels (B, H, W)."""
    b, c, h, w, height, width = shape
    make = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(b, c, h, w, generator=make, dtype=dtype)
    labels = torch.randint(0, c, (b, height, width), generator=make)
    labels[torch.rand(labels.shape, generator=make) < ignored] = IGNORE
    return logits, labels


def with_gradient(function, logits, *args, **kwargs):
    """Return losses, and the gradient of a random weighted sum of them."""
    leaf = logits.detach().clone().requires_grad_()
    losses = function(leaf, *args, **kwargs)
    return losses.detach(), torch.autograd.grad(
        losses, leaf, probe(losses).to(losses))[0]


def probe(losses):
    """Draw weights of pixels, the same in every precision."""
    return torch.randn(losses.shape, dtype=torch.float64,
                       generator=torch.Generator().manual_seed(1))


def assert_close(got, expected, tolerance):
    """Compare relative to the largest expected value, or to 1."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    torch.testing.assert_close(
        got, expected, rtol=0,
        atol=tolerance * max(1, expected.abs().max().item()))


def assert_as_composed(logits, labels, value, gradient, **kwargs):
    got = with_gradient(upsampled_cross_entropy, logits, labels, **kwargs)
    if kwargs.get('class_weight') is not None:
        kwargs['class_weight'] = torch.as_tensor(
            kwargs['class_weight'], dtype=logits.dtype)
    expected = with_gradient(
        upsampled_cross_entropy_reference, logits, labels, **kwargs)
    assert_close(got[0], expected[0], value)
    assert_close(got[1], expected[1], gradient)


@pytest.fixture
def small_bands(monkeypatch):
    """Make bands of a few rows, so that small maps have several."""
    monkeypatch.setattr(bands, 'BAND_BYTES', 1024)


# --- Equality ------------------------------------------------------------------


@thorough
@given(shapes, st.booleans(), seeds, st.sampled_from([1 << 8, 1 << 11, 1 << 20]))
def test_cross_entropy_equals_composed_in_float64(
        shape, align_corners, seed, size):
    before, bands.BAND_BYTES = bands.BAND_BYTES, size
    try:
        assert_as_composed(*draw(shape, seed), 1e-12, 1e-12,
                           align_corners=align_corners)
    finally:
        bands.BAND_BYTES = before


@thorough
@given(shapes, st.booleans(), seeds)
def test_cross_entropy_equals_composed_in_float32(shape, align_corners, seed):
    assert_as_composed(*draw(shape, seed, torch.float32), 1e-6, 1e-5,
                       align_corners=align_corners)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('shape', [
    (1, 19, 64, 128, 512, 1024),
    (2, 19, 33, 65, 257, 513),  # odd
    (1, 150, 60, 60, 480, 480),
    (1, 7, 97, 97, 769, 769),
])
def test_cross_entropy_equals_composed_at_training_sizes(shape, align_corners):
    assert_as_composed(*draw(shape, 0, torch.float32), 1e-6, 1e-5,
                       align_corners=align_corners)


@pytest.mark.parametrize('shape', [
    (2, 3, 6, 8, 6, 8),  # as large
    (2, 3, 6, 8, 3, 4),  # smaller
    (2, 3, 40, 50, 7, 3),
    (1, 3, 1, 1, 5, 5),
    (1, 3, 5, 7, 1, 1),
    (3, 1, 4, 4, 9, 9),  # a single class
])
@pytest.mark.parametrize('align_corners', [False, True])
def test_cross_entropy_takes_labels_of_any_size(shape, align_corners, small_bands):
    assert_as_composed(*draw(shape), 1e-12, 1e-12, align_corners=align_corners)


@pytest.mark.parametrize('align_corners', [False, True])
def test_cross_entropy_passes_gradcheck(align_corners, small_bands):
    logits, labels = draw((2, 3, 3, 4, 7, 9))
    assert gradcheck(
        lambda x: upsampled_cross_entropy(x, labels, align_corners),
        logits.requires_grad_())


@pytest.mark.parametrize('weights', [
    [1., 0., 2.5, 0.1], torch.tensor([1., 0., 2.5, 0.1])])
def test_cross_entropy_weights_classes(weights, small_bands):
    logits, labels = draw((2, 4, 5, 6, 20, 21))
    assert_as_composed(logits, labels, 1e-12, 1e-12, class_weight=weights)


@pytest.mark.parametrize('value', [IGNORE, -1, 3])
def test_cross_entropy_takes_any_ignore_index(value):
    logits, labels = draw((2, 4, 5, 6, 20, 21))
    labels[labels == IGNORE] = value
    assert_as_composed(logits, labels, 1e-12, 1e-12, ignore_index=value)


def test_cross_entropy_of_ignored_pixels_is_zero(small_bands):
    logits, labels = draw((2, 4, 5, 6, 20, 21))
    labels[:] = IGNORE
    losses, grad = with_gradient(upsampled_cross_entropy, logits, labels)
    assert (losses == 0).all() and (grad == 0).all()


def test_cross_entropy_ignores_nan_gradient_of_ignored_pixel():
    logits, labels = draw((1, 4, 5, 6, 20, 21))
    logits.requires_grad_()
    losses = upsampled_cross_entropy(logits, labels)
    grad_losses = torch.ones_like(losses).masked_fill(labels == IGNORE, float('nan'))
    grad, = torch.autograd.grad(losses, logits, grad_losses)
    assert grad.isfinite().all()


@pytest.mark.parametrize('size', [1e2, 1e4])
def test_cross_entropy_takes_large_logits(size, small_bands):
    logits, labels = draw((2, 4, 5, 6, 20, 21), dtype=torch.float32)
    got = with_gradient(upsampled_cross_entropy, size * logits, labels)
    expected = with_gradient(
        upsampled_cross_entropy_reference, size * logits.double(), labels)
    assert_close(got[0].double(), expected[0], 1e-6)
    rounding = 1e-7 * size * logits.abs().max().item()  # of the logits
    assert_close(got[1].double(), expected[1], rounding)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.int32])
def test_cross_entropy_takes_labels_of_any_integer_type(dtype):
    logits, labels = draw((2, 4, 5, 6, 20, 21))
    assert torch.equal(upsampled_cross_entropy(logits, labels.to(dtype)),
                       upsampled_cross_entropy(logits, labels))


@pytest.mark.parametrize('layout', ['channels_last', 'sliced', 'expanded'])
def test_cross_entropy_takes_any_strides(layout, small_bands):
    logits, labels = draw((2, 4, 6, 8, 24, 32))
    if layout == 'channels_last':
        logits = logits.contiguous(memory_format=torch.channels_last)
    elif layout == 'sliced':
        logits, labels = logits[:, :, ::2, 1::2], labels[:, ::2, ::2]
    else:
        logits, labels = logits[:1].expand(2, -1, -1, -1), labels[:1].expand(
            2, -1, -1)
    assert_as_composed(logits, labels, 1e-12, 1e-12)


# --- Hits ------------------------------------------------------------------------


@thorough
@given(shapes, st.booleans(), seeds)
def test_hits_are_pixels_whose_label_has_largest_logit(
        shape, align_corners, seed):
    logits, labels = draw(shape, seed)
    _, hits = upsampled_cross_entropy(
        logits, labels, align_corners, with_hits=True)
    enlarged = F.interpolate(
        logits, labels.shape[1:], mode='bilinear', align_corners=align_corners)
    picked = enlarged.gather(
        1, labels.masked_fill(labels == IGNORE, 0).unsqueeze(1)).squeeze(1)
    gap = enlarged.amax(1) - picked
    assert hits.dtype == torch.bool
    assert hits[(gap == 0) & (labels != IGNORE)].all() or (gap < 1e-12).any()
    assert not hits[(gap > 1e-12) | (labels == IGNORE)].any()


def test_hits_of_equal_logits_are_all_but_ignored():
    labels = torch.tensor([[[0, 1, IGNORE]]])
    _, hits = upsampled_cross_entropy(
        torch.zeros(1, 2, 1, 1), labels, with_hits=True)
    assert hits.tolist() == [[[True, True, False]]]


# --- Types, autocast, compilation, checkpointing -----------------------------------


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_cross_entropy_upsamples_half_precision_in_float32(dtype):
    logits, labels = draw((2, 4, 5, 6, 20, 21), dtype=torch.float32)
    logits = logits.to(dtype)
    losses, grad = with_gradient(upsampled_cross_entropy, logits, labels)
    expected = with_gradient(
        upsampled_cross_entropy_reference, logits.float(), labels)
    assert losses.dtype == torch.float32 and grad.dtype == dtype
    assert_close(losses, expected[0], 1e-6)
    assert_close(grad.float(), expected[1], torch.finfo(dtype).eps)


def test_cross_entropy_ignores_autocast(small_bands):
    logits, labels = draw((2, 4, 5, 6, 20, 21), dtype=torch.float32)
    plain = with_gradient(upsampled_cross_entropy, logits, labels)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = with_gradient(upsampled_cross_entropy, logits, labels)
    assert all(torch.equal(*pair) for pair in zip(plain, cast))


@pytest.mark.parametrize('layout', [
    torch.contiguous_format, torch.channels_last])
def test_cross_entropy_passes_opcheck(layout):
    logits, labels = draw((2, 4, 5, 6, 20, 21), dtype=torch.float32)
    logits = logits.contiguous(memory_format=layout).requires_grad_()
    torch.library.opcheck(torch.ops.mmseg_encstdc.upsampled_cross_entropy,
                          (logits, labels, False, IGNORE))
    losses, _, logsumexp = torch.ops.mmseg_encstdc.upsampled_cross_entropy(
        logits, labels, True, IGNORE)
    torch.library.opcheck(
        torch.ops.mmseg_encstdc.upsampled_cross_entropy_backward,
        (torch.ones_like(losses), logits.detach(), labels, logsumexp, True,
         IGNORE))


def test_cross_entropy_compiles_without_graph_break():
    logits, labels = draw((2, 4, 5, 6, 20, 21), dtype=torch.float32)
    weights = torch.rand(4)

    def loss(x):
        losses, hits = upsampled_cross_entropy(
            x, labels, class_weight=weights, with_hits=True)
        return losses * hits

    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    for got, expected in zip(with_gradient(compiled, logits),
                             with_gradient(loss, logits)):
        assert torch.equal(got, expected)


def test_cross_entropy_gradients_with_checkpointing_are_equal():
    logits, labels = draw((2, 4, 5, 6, 20, 21))
    again = with_gradient(
        lambda x: checkpoint(upsampled_cross_entropy, x, labels,
                             use_reentrant=False), logits)
    plain = with_gradient(upsampled_cross_entropy, logits, labels)
    assert all(torch.equal(*pair) for pair in zip(again, plain))


@pytest.mark.parametrize('weights', [None, [1., 2., .5], torch.rand(3)])
@pytest.mark.parametrize('with_hits', [False, True])
def test_cross_entropy_second_derivative_names_reference(weights, with_hits):
    logits, labels = draw((1, 3, 2, 2, 4, 4))
    given = (logits.requires_grad_(), labels, True, IGNORE, weights, with_hits)

    def second_derivative(function):
        out = function(*given)
        grad, = torch.autograd.grad(
            (out[0] if with_hits else out).sum(), logits, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), logits)[0], out

    with pytest.raises(RuntimeError, match='upsampled_cross_entropy_reference'):
        second_derivative(upsampled_cross_entropy)
    second, out = second_derivative(upsampled_cross_entropy_reference)
    assert second.abs().max() > 0
    for mine, theirs in zip(out, upsampled_cross_entropy(*given)):
        assert torch.allclose(mine.double(), theirs.double())


def test_cross_entropy_of_empty_batch_is_empty():
    losses = upsampled_cross_entropy(
        torch.zeros(0, 3, 4, 4), torch.zeros(0, 8, 8, dtype=torch.int64))
    assert losses.shape == (0, 8, 8)


# --- Memory --------------------------------------------------------------------


class LargestTensor(TorchDispatchMode):
    """Record the size of the largest tensor that an operator makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.untyped_storage().nbytes()
                                // value.element_size())
        return out


def test_cross_entropy_makes_no_upsampled_logits():
    logits, labels = draw((2, 150, 32, 32, 256, 256), dtype=torch.float32)
    with LargestTensor() as forward:
        _, _, logsumexp = bands.forward(logits, labels, False, IGNORE)
    with LargestTensor() as backward:
        bands.backward(torch.ones(labels.shape), logits, labels, logsumexp,
                       False, IGNORE)
    image = 150 * 256 * 256
    for largest in (forward.largest, backward.largest):
        assert 0 < largest <= image / 8  # the map (h, C, W); a band is less


def test_cross_entropy_upsamples_one_image_at_a_time_on_gpu(monkeypatch):
    logits, labels = draw((3, 4, 5, 6, 20, 21), dtype=torch.float32)
    expected = with_gradient(upsampled_cross_entropy, logits, labels)
    monkeypatch.setattr(bands, 'RowBands', bands.WholeImage)
    with LargestTensor() as watched:
        losses, _, logsumexp = bands.forward(logits, labels, False, IGNORE)
    grad = bands.backward(
        probe(losses).float(), logits, labels, logsumexp, False, IGNORE)
    assert_close(losses, expected[0], 1e-6)
    assert_close(grad, expected[1], 1e-5)
    assert watched.largest == max(4 * 20 * 21, 3 * 20 * 21)


# --- Errors --------------------------------------------------------------------


@pytest.mark.parametrize('change, error, message', [
    (dict(ignore_index=None), TypeError, 'ignore_index must be an int, got None'),
    (dict(logits=[[1.]]), TypeError, 'logits must be a tensor, got a list'),
    (dict(labels=None), TypeError, 'labels must be a tensor, got a NoneType'),
    (dict(logits=torch.zeros(2, 3, 4, 4).long()), TypeError,
     'logits must be float64.*got torch.int64'),
    (dict(labels=torch.zeros(2, 8, 8)), TypeError,
     'integer type .int64.*got torch.float'),
    (dict(labels=torch.zeros(2, 8, 8).bool()), TypeError, 'got torch.bool'),
    (dict(logits=torch.zeros(3, 4, 4)), ValueError, r'\(B, C, h, w\).*\(3, 4, 4\)'),
    (dict(logits=torch.zeros(2, 0, 4, 4)), ValueError, 'at least one class'),
    (dict(labels=torch.zeros(2, 1, 8, 8).long()), ValueError,
     r'labels must be \(B, H, W\).*\(2, 1, 8, 8\)'),
    (dict(labels=torch.zeros(2, 0, 8).long()), ValueError, 'at least one row'),
    (dict(labels=torch.zeros(3, 8, 8).long()), ValueError, 'same batch size'),
    (dict(labels=torch.zeros(2, 8, 8, device='meta').long()), ValueError,
     'labels must be on the device of logits, cpu; got meta'),
    (dict(labels=torch.full((2, 8, 8), 3)), ValueError,
     'the id 3, which is none of the 3 classes'),
    (dict(labels=torch.full((2, 8, 8), -1)), ValueError, 'the id -1.*=255'),
    (dict(class_weight=[1., 2.]), ValueError, r'class_weight must have 3.*\(2,\)'),
])
def test_cross_entropy_rejects_wrong_arguments(change, error, message):
    given = dict(logits=torch.zeros(2, 3, 4, 4),
                 labels=torch.zeros(2, 8, 8, dtype=torch.int64))
    with pytest.raises(error, match=message):
        upsampled_cross_entropy(**{**given, **change})


def test_cross_entropy_without_label_check_gives_nan():
    logits, labels = draw((1, 4, 5, 6, 20, 21), ignored=0)
    labels[0, 3, 4] = 200
    losses, hits, logsumexp = bands.forward(logits, labels, False, IGNORE)
    assert losses.isnan().nonzero().tolist() == [[0, 3, 4]]
    assert not hits[0, 3, 4]
    grad = bands.backward(torch.ones_like(losses), logits, labels, logsumexp,
                          False, IGNORE)
    assert grad.isnan().any() and not grad.isnan().all()


@pytest.mark.parametrize('dtype, classes, label', [
    (torch.uint8, 300, 60), (torch.int8, 200, 100)])
def test_cross_entropy_takes_more_classes_than_label_type(dtype, classes, label):
    logits = torch.randn(1, classes, 4, 4)
    labels = torch.full((1, 8, 8), label)
    assert torch.equal(upsampled_cross_entropy(logits, labels.to(dtype)),
                       upsampled_cross_entropy(logits, labels))


def test_cross_entropy_does_not_wrap_ignore_index():
    logits = torch.randn(1, 256, 4, 4)
    labels = torch.full((1, 8, 8), 255)
    weights = torch.rand(256)
    assert torch.equal(*(upsampled_cross_entropy(
        logits, each, ignore_index=-1, class_weight=weights)
        for each in (labels, labels.to(torch.uint8))))
    with pytest.raises(ValueError, match='the id -1'):
        upsampled_cross_entropy(logits, torch.full((1, 8, 8), -1).to(torch.int8))


@pytest.mark.parametrize('masked', [torch.finfo(torch.float32).min, float('-inf')])
def test_cross_entropy_takes_masked_classes(masked):
    logits, labels = draw((2, 4, 5, 6, 20, 21), dtype=torch.float32)
    labels[labels == 3] = 0
    expected = with_gradient(upsampled_cross_entropy, logits[:, :3], labels)
    logits[:, 3] = masked
    losses, grad = with_gradient(upsampled_cross_entropy, logits, labels)
    assert_close(losses, expected[0], 1e-6)
    assert_close(grad[:, :3].contiguous(), expected[1], 1e-5)
    assert (grad[:, 3] == 0).all()


@pytest.mark.parametrize('label', [0, 3])
def test_cross_entropy_of_plus_infinity_is_nan(label):
    logits, labels = torch.randn(1, 4, 5, 6), torch.full((1, 20, 21), label)
    logits[0, 3, 2, 2] = float('inf')
    losses, grad = with_gradient(upsampled_cross_entropy, logits, labels)
    expected = upsampled_cross_entropy_reference(logits, labels)
    assert expected.isnan().any() and losses[expected.isnan()].isnan().all()
    assert grad.isnan().any()


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_cross_entropy_traced_rejects_wrong_shape():
    traced = torch.jit.trace(
        lambda x, y: upsampled_cross_entropy(x, y),
        (torch.randn(2, 3, 2, 2), torch.zeros(2, 4, 4, dtype=torch.int64)))
    for labels, message in (
            (torch.zeros(1, 4, 4, dtype=torch.int64), 'must have the same batch'),
            (torch.zeros(2, 4, 4), 'labels must be of an integer type')):
        with pytest.raises(Exception, match=message):
            traced(torch.randn(2, 3, 2, 2), labels)


@pytest.mark.parametrize('weights', [
    {0: 5., 1: 1., 2: 1.}, 'abc', b'123', {3., 1., 2.}, ['1', '1', '1'], 2.,
    [None] * 3])
def test_cross_entropy_rejects_class_weight(weights):
    logits, labels = torch.randn(1, 3, 2, 2), torch.zeros(1, 4, 4).long()
    with pytest.raises(TypeError, match='class_weight must be a sequence of numbers'):
        upsampled_cross_entropy(logits, labels, class_weight=weights)


def test_class_weights_are_not_cached_in_fake_tensor_mode():
    logits, labels = torch.randn(1, 3, 2, 2), torch.zeros(1, 4, 4).long()
    weights = [2.5, 1., 1.]
    mode = FakeTensorMode()
    with mode:
        upsampled_cross_entropy(mode.from_tensor(logits), mode.from_tensor(labels),
                                class_weight=weights)
    losses = upsampled_cross_entropy(logits, labels, class_weight=weights)
    torch.testing.assert_close(losses, 2.5 * upsampled_cross_entropy(logits, labels))


def test_cross_entropy_forward_mode_equals_reference():
    logits, labels = draw((1, 3, 4, 4, 8, 8))
    direction = torch.randn_like(logits)
    got, expected = (
        torch.func.jvp(lambda x, f=f: f(x, labels), (logits, ), (direction, ))[1]
        for f in (upsampled_cross_entropy, upsampled_cross_entropy_reference))
    assert expected.abs().max() > 0
    assert_close(got, expected, 1e-12)


def test_row_bands_of_tall_maps_have_small_weights():
    bands._row_bands.cache_clear()
    upsampled_cross_entropy(torch.randn(1, 2, 1500, 2),
                            torch.zeros(1, 3000, 2, dtype=torch.int64))
    kept = bands._row_bands(1500, 3000, False, torch.float32, bands.MAX_ROWS)
    assert bands._row_bands.cache_info().hits == 1
    assert sum(band.weights.numel() for band in kept) < 3000 * 150
