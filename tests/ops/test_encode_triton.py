"""Run the Triton kernels of the Encoding operator by Triton's interpreter."""
from functools import partial
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
dtypes, seeds = st.sampled_from(TYPES), st.integers(0, 2**16)
# The interpreter takes a tenth of a second for a program of the kernels.
few = partial(settings, deadline=None, derandomize=True)


@pytest.fixture(scope='module')
def kernels():
    """Return the module; memory that it allocates is NaN until it is written."""
    module = interpreted('encode')
    with interpreter():
        torch.use_deterministic_algorithms(True)  # which fills with NaN
        yield module
        torch.use_deterministic_algorithms(False)


@pytest.fixture(scope='module')
def compute(kernels):
    """Return a function that computes encodings and all gradients."""
    def compute(x, codewords, scale, grad):
        assert kernels.why_not(x, codewords) is None
        x, _ = fenced(x)  # a read outside of x is NaN
        return [kernels.forward(x, codewords, scale),
                *kernels.backward(grad, x, codewords, scale)]

    return compute


def assert_formula(got, inputs, **widths):
    """Compare encodings and gradients with the formula; check the type of grad_x."""
    assert got[1].dtype == inputs[0].dtype and got[0].dtype == torch.float32
    tolerance = {**FORMULA[inputs[0].dtype], **widths}
    assert_agree(got, formula(*inputs), tolerance, inputs)


@few(max_examples=12)
@given(batches, channels, features, st.integers(1, 70), dtypes,
       st.sampled_from(list(LAYOUTS)), seeds)
@example(1, 1, 1, 1, torch.float32, 'contiguous', 0)
@example(2, 40, 1, 5, torch.bfloat16, 'contiguous', 0)
@example(3, 1, 65, 33, torch.float16, 'channels_last', 0)
@example(1, 70, 40, 256, torch.bfloat16, 'contiguous', 0)
@example(1, 70, 40, 200, torch.float32, 'channels_last', 0)
def test_encode_triton_matches_formula(compute, batch, channels, features, codes,
                                       dtype, layout, seed):
    x, *rest = draw(batch, channels, features, codes, dtype, seed)
    inputs = (LAYOUTS[layout](x), *rest)
    assert_formula(compute(*inputs), inputs)


@few(max_examples=3)
@given(st.integers(1, 2), st.integers(1, 32), st.integers(1, 9), st.integers(1, 7),
       dtypes, seeds)
@example(2, 20, 1, 10, torch.float32, 0)
@example(2, 20, 10, 1, torch.bfloat16, 0)
@pytest.mark.parametrize('layout', MAPS)
def test_encode_triton_takes_maps_with_any_strides(
        compute, layout, batch, channels, height, width, dtype, seed):
    x, *rest = draw(batch, channels, height * width, 6, dtype, seed)
    inputs = (MAPS[layout](x.unflatten(2, (height, width))), *rest)
    got = compute(*inputs)
    assert got[1].stride() == torch.empty_like(inputs[0]).stride()
    assert_formula(got, inputs)


@pytest.mark.parametrize('dtype', TYPES)
def test_encode_triton_sums_groups_splits_and_tiles(kernels, compute, dtype):
    inputs = draw(3, 66, 100, 17, dtype)
    image = 66 * 100 * kernels.operand_type(inputs[0]).itemsize
    with mock.patch.multiple(kernels, GROUP_BYTES=2 * image, PROGRAMS=99,
                             MIN_SPLIT=20):
        plan = kernels.plan_of(*inputs[:2])
        assert plan.images == 2 and plan.tiles == 2  # the last group has one image
        assert plan.splits > 1 and plan.splits * plan.length > 100
        assert_formula(compute(*inputs), inputs)


@pytest.mark.parametrize('dtype', TYPES)
def test_encode_triton_takes_image_larger_than_group_bytes(kernels, compute, dtype):
    inputs = draw(2, 20, 30, 4, dtype)
    with mock.patch.object(kernels, 'GROUP_BYTES', 1):
        assert kernels.plan_of(*inputs[:2]).images == 1
        assert_formula(compute(*inputs), inputs)


@pytest.mark.parametrize('dtype', TYPES)
def test_encode_triton_takes_arguments_with_any_strides(compute, dtype):
    x, codewords, scale, grad = draw(2, 20, 30, 4, dtype)
    inputs = (x, codewords.t().contiguous().t(), scale.repeat_interleave(2)[::2],
              grad[:1, :1].expand_as(grad))
    assert_formula(compute(*inputs), inputs)


@pytest.mark.parametrize('dtype', TYPES)
def test_encode_triton_keeps_precision_at_common_offset(compute, dtype):
    inputs = draw(1, 200, 70, 32, dtype, offset=50)
    twice = 2 * FORMULA[dtype]['codewords']
    assert_formula(compute(*inputs), inputs, codewords=twice)


@pytest.mark.filterwarnings('ignore:All-NaN slice')  # numpy's, of the interpreter
@pytest.mark.filterwarnings('ignore:invalid value')
@pytest.mark.parametrize('dtype', TYPES)
def test_encode_triton_keeps_nan_in_its_image(compute, dtype):
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
def test_encode_triton_repeats_its_bits(compute, dtype):
    inputs = draw(2, 20, 70, 5, dtype)
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


def test_encode_triton_why_not_names_reason(kernels):
    x, codewords, *_ = draw(1, 4, 6, 3, torch.float32)
    assert kernels.why_not(x, codewords) is None
    assert kernels.why_not(x.double(), codewords) == 'x is float64'
    assert kernels.why_not(x, codewords.double()) == 'codewords are float64'
    assert '257 codewords' in kernels.why_not(x, torch.empty(257, 4))
