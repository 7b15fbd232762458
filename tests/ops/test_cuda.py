"""The compiled kernels on a GPU: what a processor cannot show."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import FORMULA, LAYOUTS, TYPES, assert_agree, draw, formula
from torch.autograd import gradcheck
from torch.utils.checkpoint import checkpoint

from mmseg_encstdc.ops import backend, encode

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or not backend.load_extension(),
        reason='needs a CUDA device and the compiled kernels')
]


@pytest.fixture(autouse=True, params=['cuda', 'torch'])
def path(request, monkeypatch):
    """Every test runs on both paths."""
    monkeypatch.setenv(backend.VARIABLE, request.param)
    return request.param


def on_device(inputs):
    return [value.cuda() for value in inputs]


def computed(x, codewords, scale, grad):
    """Encodings and gradients of x (B, D, N), as operator_cases orders them."""
    leaves = [value.detach().requires_grad_() for value in (x, codewords, scale)]
    out = encode(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


# torch sums in float32, but its products may be in another order.
def tolerance(dtype):
    return {name: max(width, 2e-5) for name, width in FORMULA[dtype].items()}


@settings(max_examples=60)
@given(
    st.integers(1, 4), st.integers(1, 600), st.integers(1, 500),
    st.integers(1, 256), st.sampled_from(TYPES), st.sampled_from(list(LAYOUTS)),
    st.integers(0, 2**16))
def test_any_shape_type_and_layout_is_the_formula(
        batch, channels, features, codes, dtype, layout, seed):
    x, *rest = on_device(draw(batch, channels, features, codes, dtype, seed))
    inputs = (LAYOUTS[layout](x), *rest)  # a copy to the device would be dense
    assert_agree(computed(*inputs), formula(*inputs), tolerance(dtype), inputs)


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('side', [60, 64, 97])
def test_encnets_maps_are_the_formula(side, dtype):
    inputs = on_device(draw(2, 512, side * side, 32, dtype))
    assert_agree(computed(*inputs), formula(*inputs), tolerance(dtype), inputs)


@pytest.mark.parametrize('dtype', TYPES)
def test_a_second_run_gives_the_same_bits(dtype):
    inputs = on_device(draw(3, 512, 2000, 32, dtype))
    for first, second in zip(computed(*inputs), computed(*inputs)):
        assert torch.equal(first, second)


def test_float64_passes_gradcheck(monkeypatch):
    monkeypatch.setenv(backend.VARIABLE, 'auto')  # torch has float64
    x, codewords, scale, _ = (
        value.double().requires_grad_()
        for value in on_device(draw(2, 6, 9, 4, torch.float64)))
    assert gradcheck(encode, (x, codewords, scale))


def test_the_operator_passes_opcheck():
    x, codewords, scale, _ = on_device(draw(2, 40, 70, 8, torch.float32))
    leaves = [value.requires_grad_() for value in (x, codewords, scale)]
    torch.library.opcheck(
        torch.ops.mmseg_encstdc.encode.default, leaves)


@pytest.mark.parametrize('batch, count', [(0, 12), (2, 0)])
def test_nothing_gives_empty_or_zero(batch, count):
    x = torch.zeros(batch, 5, count, device='cuda', requires_grad=True)
    out = encode(x, torch.randn(3, 5, device='cuda'),
                 -torch.rand(3, device='cuda'))
    assert out.shape == (batch, 3, 5) and (out == 0).all()


def test_nan_reaches_the_image_it_is_in_and_no_other():
    x, codewords, scale, _ = on_device(draw(2, 64, 100, 8, torch.float32))
    x[0, 1, 2] = float('nan')
    out = encode(x, codewords, scale)
    assert out[0].isnan().all() and not out[1].isnan().any()


def test_autocast_compile_and_checkpointing_change_nothing():
    inputs = on_device(draw(2, 512, 1000, 32, torch.bfloat16))
    expected = computed(*inputs)
    x, codewords, scale, grad = inputs

    def gradients(function):
        leaves = [value.detach().requires_grad_() for value in inputs[:3]]
        out = function(*leaves)
        return [out.detach(), *torch.autograd.grad(out, leaves, grad)]

    def under_autocast(*arguments):
        with torch.autocast('cuda', dtype=torch.float16):
            return encode(*arguments)

    def checkpointed(*arguments):
        return checkpoint(encode, *arguments, use_reentrant=False)

    for function in (under_autocast, checkpointed,
                     torch.compile(encode, fullgraph=True)):
        for mine, theirs in zip(gradients(function), expected):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_another_stream_and_a_graph_give_the_same():
    inputs = on_device(draw(2, 512, 1000, 32, torch.float32))
    expected = computed(*inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        elsewhere = computed(*inputs)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = computed(*inputs)
    graph.replay()
    torch.cuda.synchronize()
    for mine, captured, theirs in zip(elsewhere, replayed, expected):
        assert torch.equal(mine, theirs) and torch.equal(captured, theirs)


def test_nothing_waits_for_the_device():
    inputs = on_device(draw(2, 512, 1000, 32, torch.bfloat16))
    computed(*inputs)
    torch.cuda.set_sync_debug_mode('error')
    try:
        computed(*inputs)
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_memory_beside_the_results_is_a_twentieth_of_x(path):
    if path == 'torch':
        pytest.skip('torch has blocks of its own')
    x, codewords, scale, grad = on_device(
        draw(16, 512, 64 * 64, 32, torch.bfloat16))
    x.requires_grad_()
    out = encode(x, codewords, scale)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.autograd.grad(out, x, grad)
    beside = torch.cuda.max_memory_allocated() - before - x.nbytes
    assert beside < 0.05 * x.nbytes
