"""The Triton kernels of the Encoding operator, run by Triton's interpreter."""
from unittest import mock

import pytest
import torch
from emulated_kernels import fenced
from hypothesis import example, given, settings
from hypothesis import strategies as st
from interpreted_kernels import interpreted, interpreter
from operator_cases import FORMULA, LAYOUTS, TYPES, assert_agree, draw, formula

MAPS = {  # of (B, D, H, W)
    'contiguous': lambda x: x.contiguous(),
    'channels_last': lambda x: x.contiguous(memory_format=torch.channels_last),
    'crop': lambda x: torch.nn.functional.pad(x, (2, 1, 1, 1))[..., 1:-1, 2:-1],
    'channels_last crop': lambda x: MAPS['crop'](x).contiguous(
        memory_format=torch.channels_last).repeat(1, 1, 2, 2)[
            ..., :x.size(2), :x.size(3)],
    'transposed': lambda x: x.mT.contiguous().mT,
    'every second row': lambda x: x.repeat_interleave(2, dim=2)[..., ::2, :],
    'broadcast over rows': lambda x: x[..., :1, :].expand_as(x),
}
batches, channels, features = (st.integers(1, most) for most in (3, 160, 100))
codes = st.integers(1, 70) | st.integers(1, 256)
dtypes, seeds = st.sampled_from(TYPES), st.integers(0, 2**16)


@pytest.fixture(scope='module')
def kernels():
    """The module; what it allocates and does not write stays NaN."""
    module = interpreted('encode')
    with interpreter():
        torch.use_deterministic_algorithms(True)  # which fills with NaN
        yield module
        torch.use_deterministic_algorithms(False)


@pytest.fixture(scope='module')
def compute(kernels):
    """Encodings and the gradients of x, codewords and scale."""
    def compute(x, codewords, scale, grad):
        assert kernels.why_not(x, codewords) is None
        x, _ = fenced(x)  # a read outside of x is NaN
        return [kernels.forward(x, codewords, scale),
                *kernels.backward(grad, x, codewords, scale)]

    return compute


def assert_formula(got, inputs, **widths):
    """Encodings and gradients are near the formula; grad_x has the type of x."""
    assert got[1].dtype == inputs[0].dtype and got[0].dtype == torch.float32
    tolerance = {**FORMULA[inputs[0].dtype], **widths}
    assert_agree(got, formula(*inputs), tolerance, inputs)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(batches, channels, features, codes, dtypes, st.sampled_from(list(LAYOUTS)),
       seeds)
@example(1, 1, 1, 1, torch.float32, 'contiguous', 0)
@example(2, 40, 1, 5, torch.bfloat16, 'contiguous', 0)
@example(3, 1, 65, 33, torch.float16, 'channels_last', 0)
@example(1, 70, 100, 256, torch.bfloat16, 'contiguous', 0)
@example(1, 70, 100, 256, torch.float32, 'channels_last', 0)
def test_encode_triton_matches_formula(compute, batch, channels, features, codes,
                                       dtype, layout, seed):
    x, *rest = draw(batch, channels, features, codes, dtype, seed)
    inputs = (LAYOUTS[layout](x), *rest)
    assert_formula(compute(*inputs), inputs)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(batches, st.integers(1, 40), st.integers(1, 9), st.integers(1, 12), dtypes,
       seeds)
@example(2, 20, 1, 10, torch.float32, 0)
@example(2, 20, 10, 1, torch.bfloat16, 0)
@pytest.mark.parametrize('layout', MAPS)
def test_encode_triton_takes_maps_of_any_strides(
        compute, layout, batch, channels, height, width, dtype, seed):
    x, *rest = draw(batch, channels, height * width, 6, dtype, seed)
    inputs = (MAPS[layout](x.unflatten(2, (height, width))), *rest)
    got = compute(*inputs)
    assert got[1].stride() == torch.empty_like(inputs[0]).stride()
    assert_formula(got, inputs)


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_encode_triton_adds_up_groups_splits_and_tiles(
        kernels, compute, layout, dtype):
    x, *rest = draw(5, 130, 150, 40, dtype)
    inputs = (LAYOUTS[layout](x), *rest)
    image = x[0].numel() * x.element_size()
    with mock.patch.multiple(kernels, GROUP_BYTES=2 * image, PROGRAMS=99,
                             MIN_SPLIT=20):
        plan = kernels.plan_of(*inputs[:2])
        assert (plan.images, plan.tiles) == (2, 5)  # so 3 groups, the last of 1
        assert plan.splits > 1 and plan.splits * plan.length > 150
        assert_formula(compute(*inputs), inputs)


@pytest.mark.parametrize('dtype', TYPES)
def test_encode_triton_takes_a_group_larger_than_its_bytes(kernels, compute, dtype):
    inputs = draw(2, 20, 30, 4, dtype)
    with mock.patch.object(kernels, 'GROUP_BYTES', 1):
        assert kernels.plan_of(*inputs[:2]).images == 1
        assert_formula(compute(*inputs), inputs)


@pytest.mark.parametrize('dtype', TYPES)
def test_encode_triton_takes_arguments_of_any_strides(compute, dtype):
    x, codewords, scale, grad = draw(2, 20, 30, 4, dtype)
    inputs = (x, codewords.t().contiguous().t(), scale.repeat_interleave(2)[::2],
              grad[:1, :1].expand_as(grad))
    assert_formula(compute(*inputs), inputs)


@pytest.mark.parametrize('dtype', TYPES)
def test_encode_triton_keeps_precision_at_a_common_offset(compute, dtype):
    inputs = draw(1, 200, 90, 32, dtype, offset=50)
    twice = 2 * FORMULA[dtype]['codewords']
    assert_formula(compute(*inputs), inputs, codewords=twice)


@pytest.mark.filterwarnings('ignore:All-NaN slice')  # numpy's, of the interpreter
@pytest.mark.filterwarnings('ignore:invalid value')
@pytest.mark.parametrize('dtype', TYPES)
def test_encode_triton_confines_nan(compute, dtype):
    x, *rest = draw(2, 40, 50, 5, dtype)
    right = compute(x, *rest)
    x[0, 3, 7] = float('nan')
    out, grad_x, *sums = compute(x, *rest)
    assert out[0].isnan().all() and torch.equal(out[1], right[0][1])
    assert grad_x[0, :, 7].isnan().all()
    for image, feature in ((0, slice(7)), (0, slice(8, None)), (1, slice(None))):
        place = image, slice(None), feature
        assert torch.equal(grad_x[place], right[1][place])
    assert all(value.isnan().all() for value in sums)


@pytest.mark.parametrize('dtype', TYPES)
def test_encode_triton_gives_the_same_bits_twice(compute, dtype):
    inputs = draw(2, 70, 140, 32, dtype)
    for first, second in zip(compute(*inputs), compute(*inputs)):
        assert torch.equal(first, second)


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('maps', [1, 2])  # forward, backward
def test_encode_triton_workspace_is_small(kernels, dtype, maps):
    x = torch.empty(16, 512, 64, 64, dtype=dtype, device='meta')
    codewords = torch.empty(32, 512, device='meta')
    plan = kernels.plan_of(x, codewords)
    space = kernels.workspace(x, codewords, plan, maps)
    assert sum(part.nbytes for part in space) < 0.05 * x.nbytes
    assert plan.images * x[0].nbytes <= kernels.GROUP_BYTES


def test_encode_triton_workspace_is_bounded_where_k_exceeds_d(kernels):
    x, codewords = torch.empty(64, 1, 64 * 64), torch.empty(256, 1)
    space = kernels.workspace(x, codewords, kernels.plan_of(x, codewords), 2)
    assert sum(part.nbytes for part in space) < 3 * kernels.GROUP_BYTES


def test_encode_triton_says_why_not(kernels):
    x, codewords, *_ = draw(1, 4, 6, 3, torch.float32)
    assert kernels.why_not(x, codewords) is None
    assert kernels.why_not(x.double(), codewords) == 'x is float64'
    assert kernels.why_not(x, codewords.double()) == 'codewords are float64'
    assert '257 codewords' in kernels.why_not(x, torch.empty(257, 4))
