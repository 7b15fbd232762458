"""The selection of the k-th largest, run thread by thread on a processor."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

KINDS = {
    'normal': lambda count: torch.randn(count),
    'losses': lambda count: torch.randn(count).mul(3).clamp(min=0),
    'ties': lambda count: torch.randint(-3, 3, (count, )).float(),
    'one value': lambda count: torch.full((count, ), 0.25),
    'any bits': lambda count: torch.randint(
        -2**31, 2**31, (count, )).int().view(torch.float32),
    'close': lambda count: 1 + torch.randint(0, 300, (count, )) * 2.0**-23,
    'infinities': lambda count: torch.randn(count) / torch.randint(
        0, 3, (count, )),
    'tiny': lambda count: torch.randint(
        -9000, 9000, (count, )).float() * 2.0**-149,
    'zeros': lambda count: torch.randint(-1, 2, (count, )).float() * 0.0,
}


def assert_kth(cross_entropy, values, k, processors=2, seed=0):
    mine = cross_entropy.kth_largest(values, k, processors, seed)
    right = values.kthvalue(values.numel() - k + 1).values  # NaN is its largest too
    assert torch.equal(mine.isnan(), right.isnan())
    assert mine == right or right.isnan(), (values.numel(), k)


@settings(max_examples=80)
@given(st.integers(1, 9000), st.floats(0, 1), st.sampled_from(list(KINDS)),
       st.integers(1, 3), st.integers(0, 2**16))
def test_any_values_are_torchs_kthvalue(
        cross_entropy, count, part, kind, processors, seed):
    torch.manual_seed(seed)
    k = 1 + int(part * (count - 1))
    assert_kth(cross_entropy, KINDS[kind](count), k, processors, seed)


@pytest.mark.parametrize('kind', KINDS)
def test_every_k_is_torchs_kthvalue(cross_entropy, kind):
    values = KINDS[kind](23)
    for k in range(1, 24):
        assert_kth(cross_entropy, values, k)


def test_blocks_that_walk_share_the_values(cross_entropy):
    values = torch.randn(100_000)
    for k in (1, 77, 50_000, 99_999, 100_000):
        assert_kth(cross_entropy, values, k, processors=1)


@pytest.mark.parametrize('value', [0.0, -0.0, 3.5, -2e38, 1e-45, float('inf'),
                                   float('-inf'), float('nan')])
def test_one_value_is_itself(cross_entropy, value):
    assert_kth(cross_entropy, torch.tensor([value]), 1)


def test_there_is_one_zero(cross_entropy):
    values = KINDS['zeros'](300)
    assert values.signbit().any() and not values.signbit().all()
    for k in (1, 150, 300):
        assert not cross_entropy.kth_largest(values, k).signbit()


def test_nan_is_the_largest(cross_entropy):
    values = torch.randn(5000)
    values[[3, 900, 4999]] = torch.tensor(
        [float('nan'), -float('nan'), float('inf')])
    assert cross_entropy.kth_largest(values, 1).isnan()
    assert cross_entropy.kth_largest(values, 2).isnan()
    assert cross_entropy.kth_largest(values, 3) == float('inf')


def test_the_order_of_the_threads_changes_nothing(cross_entropy):
    values = torch.randn(9000)
    found = {cross_entropy.kth_largest(values, 4000, 2, seed).item()
             for seed in range(5)}
    assert len(found) == 1
