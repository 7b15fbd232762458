"""Compare every backend of the operators on a GPU with the formula in float64."""
import pytest
import torch
from gpu_cases import (
    BACKENDS,
    DEVICE,
    OPERATORS,
    TYPES,
    Encode,
    module_of,
    on_device,
    through_autograd,
    unavailable,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.utils.checkpoint import checkpoint

from mmseg_encstdc.ops import backend, kth_largest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason='needs a CUDA device')
]


WITH_LABELS = [case for case in BACKENDS if case[0] != 'encode']
ACCELERATED = [case for case in BACKENDS if case[1] != 'torch']
# B, D, N and K, and the part of x; B, C, h, w, H and W, and the part of the logits at
# the size of the labels.
MEMORY = {'encode': ((16, 512, 64 * 64, 32), 0.05),
          'upsampled_cross_entropy': ((2, 150, 64, 64, 512, 512), 0.1)}


@pytest.fixture(params=BACKENDS, ids='-'.join)
def forced(request, monkeypatch):
    """Force a backend of an operator; return both."""
    name, chosen = request.param
    reason = unavailable(name, chosen)
    if reason:
        pytest.skip(reason)
    monkeypatch.setenv(backend.VARIABLE, chosen)
    return OPERATORS[name], chosen


@pytest.fixture
def operator(forced):
    return forced[0]


def computed(operator, inputs):
    return through_autograd(operator, operator.function, inputs)


@pytest.mark.parametrize('dtype', TYPES, ids=str)
def test_backend_matches_formula(operator, dtype):
    for shape in operator.shapes:
        inputs = operator.draw(shape, dtype)
        operator.assert_formula(computed(operator, inputs), inputs)


@pytest.mark.parametrize('dtype', TYPES, ids=str)
def test_backend_matches_formula_in_every_layout(operator, dtype):
    for layout in operator.layouts:
        inputs = operator.draw(operator.small, dtype, layout)
        operator.assert_formula(computed(operator, inputs), inputs)


# Few, because Triton compiles for each combination of divisible sizes.
@settings(max_examples=15, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), dtype=st.sampled_from(TYPES))
def test_backend_matches_formula_at_random_sizes(operator, data, dtype):
    most = (4, 600, 500, 256) if operator is Encode else (3, 200, 20, 30, 200, 300)
    shape = [data.draw(st.integers(1, size)) for size in most]
    inputs = operator.draw(shape, dtype)
    operator.assert_formula(computed(operator, inputs), inputs)


@pytest.mark.parametrize('dtype', TYPES, ids=str)
def test_backend_repeats_its_bits(operator, dtype):
    inputs = operator.draw(operator.large, dtype)
    for first, second in zip(computed(operator, inputs), computed(operator, inputs)):
        assert torch.equal(first, second)


def test_backend_keeps_nan_in_its_image(operator):
    inputs = operator.draw(operator.small, torch.float32)
    inputs[0][(0, 1, *([2] * (inputs[0].dim() - 2)))] = float('nan')
    out, *_, grad = computed(operator, inputs)
    assert out[0].isnan().any() and not out[1].isnan().any()
    assert operator is Encode or not grad[1].isnan().any()


@pytest.mark.parametrize('forced', WITH_LABELS, indirect=True, ids='-'.join)
def test_backend_gives_nan_for_label_without_class(operator):
    logits, labels, grad = operator.draw(operator.small, torch.float32)
    labels[0, 5, 5] = logits.size(1)
    losses, hits, _, grad_logits = computed(operator, (logits, labels, grad))
    assert losses.isnan().nonzero().tolist() == [[0, 5, 5]] and not hits[0, 5, 5]
    assert grad_logits[0].isnan().any() and not grad_logits[1].isnan().any()


def test_backend_is_equal_under_autocast_compile_and_checkpoint(operator):
    inputs = operator.draw(operator.small, torch.bfloat16)
    expected = computed(operator, inputs)

    def under_autocast(*arguments):
        with torch.autocast(DEVICE, dtype=torch.float16):
            return operator.function(*arguments)

    def checkpointed(*arguments):
        return checkpoint(operator.function, *arguments, use_reentrant=False)

    for function in (under_autocast, checkpointed,
                     torch.compile(operator.function, fullgraph=True)):
        for mine, theirs in zip(
                through_autograd(operator, function, inputs), expected):
            assert torch.equal(mine, theirs)


def test_backend_is_equal_on_other_stream_and_in_graph(operator):
    inputs = operator.draw(operator.small, torch.float32)
    expected = computed(operator, inputs)  # compiles, which a capture forbids
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        elsewhere = computed(operator, inputs)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = computed(operator, inputs)
    for _ in range(2):
        graph.replay()
    torch.cuda.synchronize()
    for mine, captured, theirs in zip(elsewhere, replayed, expected):
        assert torch.equal(mine, theirs) and torch.equal(captured, theirs)


def test_backend_does_not_wait_for_the_gpu(operator):
    inputs = operator.draw(operator.small, torch.bfloat16)
    computed(operator, inputs)
    torch.cuda.set_sync_debug_mode('error')
    try:
        computed(operator, inputs)
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('forced', ACCELERATED, indirect=True, ids='-'.join)
def test_backend_takes_little_memory_besides_gradient(operator):
    shape, part = MEMORY[operator.name]
    *arguments, grad = operator.draw(shape, torch.bfloat16)
    leaf = arguments[0].requires_grad_()
    full = leaf.nbytes if operator is Encode else (
        4 * leaf.size(1) * arguments[1].numel())
    for _ in range(2):  # the first run makes what stays
        out = operator.function(*arguments)[0]
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        torch.autograd.grad(out, leaf, grad)
    assert torch.cuda.max_memory_allocated() - before - leaf.nbytes < part * full


# --- The choice -------------------------------------------------------------------


@pytest.mark.parametrize('dtype', TYPES, ids=str)
def test_backend_passes_its_self_check(forced, dtype):
    operator, chosen = forced
    assert backend._find_error(chosen, torch.device(DEVICE), dtype,
                               backend.OPERATORS[operator.name]) is None


@pytest.mark.parametrize('dtype', [*TYPES, torch.float64], ids=str)
@pytest.mark.parametrize('name', OPERATORS)
def test_auto_takes_triton_and_torch_for_float64(monkeypatch, name, dtype):
    if unavailable(name, 'triton') or torch.cuda.get_device_capability() < (8, 0):
        pytest.skip('auto takes torch without triton or tensor cores')
    monkeypatch.setenv(backend.VARIABLE, 'auto')
    operator = OPERATORS[name]
    arguments = operator.draw(operator.small, dtype)[:2]
    expected = 'torch' if dtype == torch.float64 else 'triton'
    assert backend.choose(name, *arguments) is module_of(name, expected)


@pytest.mark.parametrize('forced', ACCELERATED, indirect=True, ids='-'.join)
def test_requested_backend_rejects_float64(forced):
    operator, chosen = forced
    *arguments, _ = operator.draw(operator.small, torch.float64)
    with pytest.raises(RuntimeError, match=f'{backend.VARIABLE}={chosen}, but .*64'):
        operator.function(*arguments)


def test_encode_float64_passes_gradcheck():
    leaves = [value.double().requires_grad_()
              for value in Encode.draw((2, 6, 9, 4), torch.float64)[:3]]
    assert gradcheck(Encode.function, leaves)


@pytest.mark.parametrize('name', OPERATORS)
def test_operator_passes_opcheck(name):
    operator = OPERATORS[name]
    *arguments, _ = operator.draw(operator.small, torch.float32)
    for leaf in arguments[:operator.leaves]:
        leaf.requires_grad_()
    rest = () if operator is Encode else (False, 255)
    torch.library.opcheck(
        getattr(torch.ops.mmseg_encstdc, name).default, (*arguments, *rest))


def test_kth_largest_equals_kthvalue_and_does_not_wait():
    values, = on_device([torch.randn(1_000_003).clamp(min=0)])
    values[7], values[9] = float('nan'), float('inf')
    torch.cuda.set_sync_debug_mode('error')
    try:
        found = [kth_largest(values, k) for k in (1, 2, 60_000, 1_000_003)]
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert found[0].isnan() and found[1] == float('inf')
    right = [values.cpu().kthvalue(values.numel() - k + 1).values
             for k in (60_000, 1_000_003)]
    assert [each.item() for each in found[2:]] == [each.item() for each in right]
