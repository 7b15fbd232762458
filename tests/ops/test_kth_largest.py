"""Compare kth_largest with sorting."""
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmseg_encstdc.ops import kth_largest
from mmseg_encstdc.ops.kth_largest import kth_largest_by_topk

numbers = st.lists(
    st.one_of(st.integers(-3, 3).map(float), st.floats(width=32, allow_nan=False)),
    min_size=1, max_size=50)


@given(numbers, st.data())
def test_kth_largest_equals_sort(values, data):
    k = data.draw(st.integers(1, len(values)))
    got = kth_largest(torch.tensor(values), k)
    assert got.shape == () and got.item() == sorted(values, reverse=True)[k - 1]


@given(numbers, st.integers(0, 3), st.data())
def test_kth_largest_by_topk_matches_numpy_selection(values, nans, data):
    values = torch.tensor(values + [math.nan] * nans)
    k = data.draw(st.integers(1, len(values)))
    torch.testing.assert_close(kth_largest_by_topk(values, k), kth_largest(values, k),
                               rtol=0, atol=0, equal_nan=True)


def test_kth_largest_takes_nan_as_largest():
    values = torch.tensor([1., math.nan, 3.])
    assert kth_largest(values, 1).isnan()
    assert [kth_largest(values, k).item() for k in (2, 3)] == [3, 1]


def test_kth_largest_takes_any_layout_and_changes_nothing():
    values = torch.randn(4, 5, 6, dtype=torch.float64).transpose(0, 2)[::2]
    before = values.clone()
    assert kth_largest(values, 7) == values.flatten().sort().values[-7]
    assert torch.equal(values, before)


def test_kth_largest_has_no_gradient():
    values = torch.randn(5, requires_grad=True)
    assert not kth_largest(values, 2).requires_grad


def test_kth_largest_passes_opcheck_and_compiles():
    values = torch.randn(64)
    torch.library.opcheck(torch.ops.mmseg_encstdc.kth_largest, (values, 3))
    compiled = torch.compile(kth_largest, fullgraph=True, backend='aot_eager')
    assert compiled(values, 3) == values.sort().values[-3]


@pytest.mark.parametrize('k', [0, 5, -1])
def test_kth_largest_rejects_rank(k):
    with pytest.raises(ValueError, match=r'k must be in \[1, 4\]'):
        kth_largest(torch.zeros(4), k)


@pytest.mark.parametrize('values, k, message', [
    ([1., 2.], 1, 'values must be float32 or float64, got list'),
    (torch.zeros(4), '1', "k must be an int, got '1'")])
def test_kth_largest_rejects_other_arguments(values, k, message):
    with pytest.raises(TypeError, match=message):
        kth_largest(values, k)


def test_kth_largest_rejects_float16():
    with pytest.raises(TypeError, match='float32 or float64, got torch.float16'):
        kth_largest(torch.zeros(4).half(), 1)
