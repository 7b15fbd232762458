"""Balanced accuracy within pairs of classes that look the same."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_encstdc.scenes import PairAccuracy

CLASSES = ('road', 'floor', 'sky', 'ceiling')
PAIRS = [('road', 'floor'), ('sky', 'ceiling')]


def metric(pairs=PAIRS):
    result = PairAccuracy(pairs)
    result.dataset_meta = dict(classes=CLASSES)
    return result


def sample(logits, label):
    return dict(seg_logits=dict(data=logits), gt_sem_seg=dict(data=label[None]))


def by_hand(logits, label, own, other):
    """Share of the pixels of ``own`` at which it beats ``other``."""
    right = [
        bool(logits[own, y, x] > logits[other, y, x])
        for y, x in zip(*np.nonzero(label.numpy() == own))
    ]
    return np.mean(right) if right else np.nan


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_it_is_the_mean_of_both_members_recall(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 6, 7, generator=generator)
    label = torch.randint(0, 5, (6, 7), generator=generator)
    label[label == 4] = 255
    accuracy = metric()
    accuracy.process({}, [sample(logits, label)])
    found = accuracy.compute_metrics(accuracy.results)
    for (a, b), name in (((0, 1), 'road|floor'), ((2, 3), 'sky|ceiling')):
        expected = 50 * (
            by_hand(logits, label, a, b) + by_hand(logits, label, b, a))
        np.testing.assert_allclose(found[name], expected)


def test_always_naming_one_member_is_chance():
    logits = torch.zeros(4, 2, 10)
    logits[0] = 1  # road, everywhere
    label = torch.tensor([[0] * 9 + [1]] * 2)
    accuracy = metric()
    accuracy.process({}, [sample(logits, label)])
    assert accuracy.compute_metrics(accuracy.results)['road|floor'] == 50


def test_counts_of_images_add_up():
    logits = torch.randn(2, 4, 3, 5)
    label = torch.randint(0, 4, (2, 3, 5))
    apart, together = metric(), metric()
    for i in range(2):
        apart.process({}, [sample(logits[i], label[i])])
    joined = [each.movedim(0, -2).flatten(-2) for each in (logits, label)]
    together.process({}, [sample(joined[0], joined[1])])
    assert apart.compute_metrics(apart.results) == together.compute_metrics(
        together.results)


def test_a_pair_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="'river' .* accepted are road, floor"):
        metric([('road', 'river')]).process(
            {}, [sample(torch.zeros(4, 2, 2), torch.zeros(2, 2).long())])
