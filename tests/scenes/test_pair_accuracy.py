"""PairAccuracy matches its definition."""
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


def recall_by_loop(logits, label, own, other):
    """Return the fraction of pixels of ``own`` where its logit is the larger."""
    hits = [
        bool(logits[own, y, x] > logits[other, y, x])
        for y, x in zip(*np.nonzero(label.numpy() == own))
    ]
    return np.mean(hits) if hits else np.nan


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_pair_accuracy_matches_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 6, 7, generator=generator)
    label = torch.randint(0, 5, (6, 7), generator=generator)
    label[label == 4] = 255
    accuracy = metric()
    accuracy.process({}, [sample(logits, label)])
    found = accuracy.compute_metrics(accuracy.results)
    for (a, b), name in (((0, 1), 'road|floor'), ((2, 3), 'sky|ceiling')):
        expected = 50 * (
            recall_by_loop(logits, label, a, b) + recall_by_loop(logits, label, b, a))
        np.testing.assert_allclose(found[name], expected)


def test_pair_accuracy_of_constant_prediction_is_50():
    logits = torch.zeros(4, 2, 10)
    logits[0] = 1  # road, everywhere
    label = torch.tensor([[0] * 9 + [1]] * 2)
    accuracy = metric()
    accuracy.process({}, [sample(logits, label)])
    assert accuracy.compute_metrics(accuracy.results)['road|floor'] == 50


def test_pair_accuracy_adds_counts_of_images():
    logits = torch.randn(2, 4, 3, 5)
    label = torch.randint(0, 4, (2, 3, 5))
    apart, together = metric(), metric()
    for i in range(2):
        apart.process({}, [sample(logits[i], label[i])])
    joined = [each.movedim(0, -2).flatten(-2) for each in (logits, label)]
    together.process({}, [sample(joined[0], joined[1])])
    assert apart.compute_metrics(apart.results) == together.compute_metrics(
        together.results)


def test_pair_accuracy_rejects_unknown_class():
    with pytest.raises(ValueError, match="'river' .* accepted are road, floor"):
        metric([('road', 'river')]).process(
            {}, [sample(torch.zeros(4, 2, 2), torch.zeros(2, 2).long())])
