"""The plain twin of the CUDA kernels is the formula, however it is tiled."""
import pytest
import torch
import twin
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import FORMULA, TYPES, assert_agree, draw, formula

tilings = st.sampled_from([
    twin.Tiling(512), twin.Tiling(128, 3), twin.Tiling(256, 8, 4),
    twin.Tiling(512, 8, 8), twin.Tiling(128, 7)])


def by_twin(x, codewords, scale, grad, tiling):
    return [twin.encode_forward(x, codewords, scale, tiling),
            *twin.encode_backward(grad, x, codewords, scale, tiling)]


@settings(max_examples=40)
@given(
    st.integers(1, 3), st.integers(1, 300), st.integers(1, 130),
    st.integers(1, 70), tilings, st.integers(0, 2**16))
def test_in_float64_any_tiling_is_the_formula(
        batch, channels, features, codes, tiling, seed):
    inputs = [value.double() for value in draw(
        batch, channels, features, codes, torch.float64, seed)]
    exact = dict.fromkeys(FORMULA[torch.float32], 1e-12)
    assert_agree(by_twin(*inputs, tiling), formula(*inputs), exact, inputs)


@pytest.mark.parametrize('dtype', TYPES)
@settings(max_examples=10)
@given(st.integers(1, 300), st.integers(1, 130), st.integers(1, 40), tilings)
def test_in_other_types_it_rounds_as_tensor_cores_do(
        dtype, channels, features, codes, tiling):
    inputs = draw(2, channels, features, codes, dtype)
    got = by_twin(*inputs, tiling)
    assert got[1].dtype == dtype
    assert_agree(got, formula(*inputs), FORMULA[dtype], inputs)


def test_cut_keeps_the_ten_bits_of_tf32():
    value = torch.tensor([1 + 2**-10, 1 + 2**-11, -(1 + 2**-10 + 2**-12), 0.0])
    expected = torch.tensor([1 + 2**-10, 1.0, -(1 + 2**-10), 0.0])
    assert torch.equal(twin.cut(value), expected)
