"""ClassAccuracy matches sorting; ties, few classes, two processes."""
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmseg.registry import METRICS
from two_processes import run_two_processes

from mmseg_encstdc.evaluation.class_accuracy import rank_of


def evaluate(pairs, **kwargs):
    """Return the accuracies, in percent, of (label, scores) pairs."""
    metric = METRICS.build(dict(type='ClassAccuracy', **kwargs))
    for label, scores in pairs:
        metric.process({}, [dict(
            gt_label=torch.tensor(label), pred_score=torch.as_tensor(scores))])
    return metric.evaluate(len(pairs))


def by_sorting(pairs, k):
    """Return the percentage of labels among the first k of the sorted classes."""
    hits = 0
    for label, scores in pairs:
        order = sorted(range(len(scores)), key=lambda c: (-scores[c], c))
        hits += label in order[:k]
    return 100 * hits / len(pairs)


def random_pairs(count, classes):
    return [(int(np.random.randint(classes)), np.random.rand(classes))
            for _ in range(count)]


@st.composite
def with_ties(draw):
    """Draw labels and scores of few values, so that many are equal."""
    classes = draw(st.integers(1, 8))
    image = st.tuples(st.integers(0, classes - 1), st.lists(
        st.sampled_from([0., .25, .5]), min_size=classes, max_size=classes))
    return draw(st.lists(image, min_size=1, max_size=6))


@given(with_ties())
def test_class_accuracy_matches_sorting(pairs):
    assert evaluate(pairs) == dict(top1=by_sorting(pairs, 1), top5=by_sorting(pairs, 5))


def test_class_accuracy_matches_topk():
    pairs = random_pairs(200, classes=20)
    found = evaluate(pairs, topk=(1, 3, 5))
    for k in (1, 3, 5):
        hits = sum(label in torch.as_tensor(scores).topk(k).indices
                   for label, scores in pairs)
        assert found[f'top{k}'] == 100 * hits / 200


def test_class_accuracy_top1_matches_argmax_of_ties():
    pairs = [(c, [.5, .5, .5]) for c in range(3)]
    hits = sum(int(torch.tensor(scores).argmax()) == c for c, scores in pairs)
    assert evaluate(pairs)['top1'] == 100 * hits / 3 == 100 / 3


@pytest.mark.parametrize('classes', [1, 2, 4, 5])
def test_class_accuracy_top5_of_five_classes_is_100(classes):
    found = evaluate(random_pairs(30, classes))
    assert found['top5'] == 100
    assert (found['top1'] == 100) == (classes == 1)


def test_class_accuracy_of_nan_is_zero():
    nothing = [float('nan')] * 10
    assert evaluate([(0, nothing), (9, nothing)]) == dict(top1=0, top5=0)
    assert rank_of(1, torch.tensor([float('nan'), 3.])) == 1


@pytest.mark.parametrize('label', [-1, 3])
def test_class_accuracy_rejects_label_outside_classes(label):
    with pytest.raises(ValueError, match=f'label is {label}, .* classes 0 to 2'):
        evaluate([(label, [.1, .2, .7])])


@pytest.mark.parametrize('topk', [(), (0, 1)])
def test_class_accuracy_rejects_topk_below_1(topk):
    with pytest.raises(ValueError, match='topk must be numbers of 1 or more'):
        METRICS.build(dict(type='ClassAccuracy', topk=topk))


def test_class_accuracy_prefixes_names():
    assert set(evaluate([(0, [1.])], prefix='val')) == {'val/top1', 'val/top5'}


def test_class_accuracy_evaluate_resets_results():
    metric = METRICS.build(dict(type='ClassAccuracy', topk=(1, )))
    found = []
    for label in (0, 1):
        metric.process({}, [dict(gt_label=label, pred_score=torch.tensor([1., 0.]))])
        found.append(metric.evaluate(1)['top1'])
    assert found == [100, 0]


TWO_PROCESSES = """
with np.load(f'{folder}/pairs.npz') as file:
    labels, scores = file['labels'], torch.as_tensor(file['scores'])
for count in (7, 6, 1):
    metric = METRICS.build(dict(type='ClassAccuracy'))
    for i in DefaultSampler(range(count), shuffle=False):
        metric.process({}, [dict(gt_label=labels[i], pred_score=scores[i])])
    found[count] = metric.evaluate(count)
"""


def test_class_accuracy_of_two_processes_matches_one(tmp_path):
    pairs = random_pairs(7, classes=8)
    labels, scores = zip(*pairs)
    np.savez(tmp_path / 'pairs.npz', labels=labels, scores=np.stack(scores))
    for found in run_two_processes(tmp_path, TWO_PROCESSES):
        assert found == {str(n): evaluate(pairs[:n]) for n in (7, 6, 1)}
