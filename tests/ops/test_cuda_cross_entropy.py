"""The compiled cross entropy of upsampled logits, and the selection, on a GPU."""
import pytest
import torch
from cross_entropy_cases import IGNORE, SHAPES, assert_agree, draw, error
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import TYPES

from mmseg_encstdc.ops import paths

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or paths.extension() is None,
        reason='needs a CUDA device and the compiled kernels')
]

# The device's exponential is an approximation, of which a ratio is multiplied up
# to four times.
ON_DEVICE = 4e-6
# EncNet on ADE20K, STDC-Seg on Cityscapes, with smaller batches.
NETWORKS = {'EncNet': (2, 150, 64, 64, 512, 512),
            'STDC-Seg': (2, 19, 64, 128, 512, 1024)}


def kernels():
    return torch.ops.mmseg_encstdc_cuda


def on_device(inputs):
    return [value.cuda() for value in inputs]


def computed(logits, labels, grad, align_corners=False, ignore_index=IGNORE):
    """Losses, hits, normaliser and the gradient of the logits."""
    assert kernels().supports_cross_entropy(logits, labels)
    losses, hits, normaliser = kernels().cross_entropy(
        logits, labels, align_corners, ignore_index)
    slope = kernels().cross_entropy_backward(
        grad, logits, labels, normaliser, align_corners, ignore_index)
    return [losses, hits, normaliser, slope]


def assert_formula(inputs, align_corners):
    got = computed(*on_device(inputs), align_corners)
    assert_agree([value.cpu() for value in got], inputs, align_corners,
                 values=ON_DEVICE)


@settings(max_examples=60)
@given(
    st.integers(1, 3), st.integers(2, 200), st.integers(1, 20), st.integers(1, 30),
    st.integers(0, 150), st.integers(0, 250), st.sampled_from(TYPES),
    st.booleans(), st.integers(0, 2**16))
def test_any_shape_and_type_is_the_formula(
        batch, channels, rows, columns, more_rows, more_columns, dtype,
        align_corners, seed):
    assert_formula(draw(batch, channels, rows, columns, rows + more_rows,
                        columns + more_columns, dtype, seed), align_corners)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('shape', SHAPES)
def test_shapes_of_every_kind_are_the_formula(shape, align_corners):
    assert_formula(draw(*SHAPES[shape]), align_corners)


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('network', NETWORKS)
def test_the_networks_maps_are_pytorchs(network, dtype):
    # On the device and in float32: float64 would take gigabytes.
    logits, labels, grad = on_device(draw(*NETWORKS[network], dtype))
    losses, _, normaliser, slope = computed(logits, labels, grad)
    leaf = logits.float().requires_grad_()
    scores = torch.nn.functional.interpolate(
        leaf, size=labels.shape[1:], mode='bilinear', align_corners=False)
    right = torch.nn.functional.cross_entropy(
        scores, labels, ignore_index=IGNORE, reduction='none')
    expected, = torch.autograd.grad(right, leaf, grad)
    assert error(losses, right.detach()) < 1e-5
    assert error(normaliser, scores.detach().logsumexp(1)) < 1e-5
    assert error(slope, expected) < {torch.float32: 2e-5, torch.float16: 1e-3,
                                     torch.bfloat16: 8e-3}[dtype]


@pytest.mark.parametrize('width', [300, 1e4])
def test_large_logits_stay_finite_and_right(width):
    inputs = draw(*SHAPES['eight times'], width=width)
    got = [value.cpu() for value in computed(*on_device(inputs))]
    assert not any(value.isnan().any() for value in got)
    assert_agree(got, inputs, False, values=ON_DEVICE, gradient=3e-7 * width)


def test_a_label_without_a_class_gives_nan_and_the_device_lives():
    logits, labels, grad = on_device(draw(*SHAPES['eight times']))
    labels[0, 5, 5] = 19
    losses, hits, _, slope = computed(logits, labels, grad)
    assert losses.isnan().sum() == 1 and losses[0, 5, 5].isnan()
    assert not hits[0, 5, 5]
    assert slope[0].isnan().any() and not slope[1].isnan().any()
    torch.cuda.synchronize()


def test_layouts_and_bytes_change_nothing():
    logits, labels, grad = on_device(draw(*SHAPES['odd']))
    expected = computed(logits, labels, grad)
    last = logits.contiguous(memory_format=torch.channels_last)
    spread = labels.repeat_interleave(2, dim=2)[..., ::2]
    pull = grad.transpose(1, 2).contiguous().transpose(1, 2)
    for got in (computed(last, spread, pull),
                computed(logits, labels.byte(), grad)):
        for mine, theirs in zip(got, expected):
            assert torch.equal(mine, theirs)


def test_what_is_not_supported_is_said():
    logits, labels, _ = on_device(draw(*SHAPES['odd']))
    for other in (logits.double(), logits.cpu(), logits[0], logits[:1]):
        assert not kernels().supports_cross_entropy(other, labels)
    for other in (labels.int(), labels.cpu(), labels[0], labels[:, :9]):
        assert not kernels().supports_cross_entropy(logits, other)
    with pytest.raises(RuntimeError, match='not what the kernels'):
        kernels().cross_entropy(logits, labels[:, :9], False, IGNORE)


@pytest.mark.parametrize('dtype', TYPES)
def test_a_second_run_gives_the_same_bits(dtype):
    inputs = on_device(draw(*NETWORKS['STDC-Seg'], dtype))
    for first, second in zip(computed(*inputs), computed(*inputs)):
        assert torch.equal(first, second)


def test_memory_beside_the_results_is_a_part_of_the_upsampled():
    logits, labels, grad = on_device(draw(*NETWORKS['EncNet']))
    full = 4 * logits.size(1) * labels.numel()
    _, _, normaliser = kernels().cross_entropy(logits, labels, False, IGNORE)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kernels().cross_entropy_backward(
        grad, logits, labels, normaliser, False, IGNORE)
    beside = torch.cuda.max_memory_allocated() - before - logits.nbytes
    assert beside < 0.05 * full


@pytest.mark.parametrize('count', [1, 2, 1000, 2048, 2049, 1_000_003, 6_291_456])
def test_the_kth_largest_is_torchs_kthvalue(count):
    for values in (torch.randn(count), torch.randn(count).clamp(min=0),
                   torch.randint(-3, 3, (count, )).float()):
        for k in {1, count // 2 + 1, count}:
            mine = kernels().kth_largest(values.cuda(), k)
            assert mine.shape == () and mine.device.type == 'cuda'
            assert mine.item() == values.kthvalue(count - k + 1).values.item()


def test_the_kth_largest_orders_nan_and_infinities():
    values = torch.randn(7, 900, device='cuda')  # any shape
    values[2, 3], values[6, 899] = float('nan'), float('inf')
    assert kernels().kth_largest(values, 1).isnan()
    assert kernels().kth_largest(values, 2) == float('inf')
    for k in (0, values.numel() + 1):
        with pytest.raises(RuntimeError, match='k must be'):
            kernels().kth_largest(values, k)


def test_nothing_waits_for_the_device():
    inputs = on_device(draw(*SHAPES['eight times']))
    losses = computed(*inputs)[0]
    kernels().kth_largest(losses, 1000)
    torch.cuda.set_sync_debug_mode('error')
    try:
        computed(*inputs)
        kernels().kth_largest(losses, 1000)
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_another_stream_and_a_graph_give_the_same():
    inputs = on_device(draw(*SHAPES['eight times']))

    def run():
        got = computed(*inputs)
        return [*got, kernels().kth_largest(got[0], 1000)]

    expected = run()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        elsewhere = run()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = run()
    for _ in range(2):  # the second run starts from counts of its own, too
        graph.replay()
    torch.cuda.synchronize()
    for mine, captured, theirs in zip(elsewhere, replayed, expected):
        assert torch.equal(mine, theirs) and torch.equal(captured, theirs)
