"""Compare encode_twin, the arithmetic of the CUDA kernels, with the formula."""
import encode_twin
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import FORMULA, TYPES, assert_agree, draw, formula


@pytest.mark.parametrize('dtype', [torch.float64, *TYPES])
@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 300), st.integers(1, 130),
       st.integers(1, 70), st.integers(0, 2**16))
def test_encode_twin_matches_formula(dtype, batch, channels, features, codes, seed):
    x, codewords, scale, grad = inputs = [
        value.to(torch.float64) if dtype == torch.float64 else value
        for value in draw(batch, channels, features, codes, dtype, seed)]
    got = [encode_twin.forward(x, codewords, scale),
           *encode_twin.backward(grad, x, codewords, scale)]
    exact = dict.fromkeys(FORMULA[torch.float32], 1e-12)
    assert got[1].dtype == dtype
    assert_agree(got, formula(*inputs), FORMULA.get(dtype, exact), inputs)


def test_cut_keeps_ten_bits():
    value = torch.tensor([1 + 2**-10, 1 + 2**-11, -(1 + 2**-10 + 2**-12), 0.0])
    expected = torch.tensor([1 + 2**-10, 1.0, -(1 + 2**-10), 0.0])
    assert torch.equal(encode_twin.cut(value), expected)
