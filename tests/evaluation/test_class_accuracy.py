"""Top-k accuracy against sorting, with ties, few classes and two processes."""
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmseg.registry import METRICS

from mmseg_encstdc.evaluation.class_accuracy import rank_of


def evaluate(pairs, **kwargs):
    """Percent for (label, scores) pairs."""
    metric = METRICS.build(dict(type='ClassAccuracy', **kwargs))
    for label, scores in pairs:
        metric.process({}, [dict(
            gt_label=torch.tensor(label), pred_score=torch.as_tensor(scores))])
    return metric.evaluate(len(pairs))


def by_sorting(pairs, k):
    """Percent of images with the label among the k first of sorted classes."""
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
    """Labels and scores of few values, so that many are equal."""
    classes = draw(st.integers(1, 8))
    image = st.tuples(st.integers(0, classes - 1), st.lists(
        st.sampled_from([0., .25, .5]), min_size=classes, max_size=classes))
    return draw(st.lists(image, min_size=1, max_size=6))


@given(with_ties())
def test_accuracy_is_what_sorting_finds_ties_included(pairs):
    assert evaluate(pairs) == dict(top1=by_sorting(pairs, 1), top5=by_sorting(pairs, 5))


def test_accuracy_agrees_with_topk_where_scores_differ():
    pairs = random_pairs(200, classes=20)
    found = evaluate(pairs, topk=(1, 3, 5))
    for k in (1, 3, 5):
        hits = sum(label in torch.as_tensor(scores).topk(k).indices
                   for label, scores in pairs)
        assert found[f'top{k}'] == 100 * hits / 200


def test_top_1_is_the_accuracy_of_argmax_ties_included():
    pairs = [(c, [.5, .5, .5]) for c in range(3)]
    hits = sum(int(torch.tensor(scores).argmax()) == c for c, scores in pairs)
    assert evaluate(pairs)['top1'] == 100 * hits / 3 == 100 / 3


@pytest.mark.parametrize('classes', [1, 2, 4, 5])
def test_among_five_classes_or_fewer_everything_is_in_the_first_five(classes):
    found = evaluate(random_pairs(30, classes))
    assert found['top5'] == 100
    assert (found['top1'] == 100) == (classes == 1)


def test_a_network_that_diverged_is_not_right():
    nothing = [float('nan')] * 10
    assert evaluate([(0, nothing), (9, nothing)]) == dict(top1=0, top5=0)
    assert rank_of(1, torch.tensor([float('nan'), 3.])) == 1


@pytest.mark.parametrize('label', [-1, 3])
def test_a_label_outside_the_classes_is_an_error(label):
    with pytest.raises(ValueError, match=f'label is {label}, .* classes 0 to 2'):
        evaluate([(label, [.1, .2, .7])])


@pytest.mark.parametrize('topk', [(), (0, 1)])
def test_a_k_below_1_is_an_error(topk):
    with pytest.raises(ValueError, match='topk must be numbers of 1 or more'):
        METRICS.build(dict(type='ClassAccuracy', topk=topk))


def test_a_prefix_goes_before_every_name():
    assert set(evaluate([(0, [1.])], prefix='val')) == {'val/top1', 'val/top5'}


def test_a_second_evaluation_starts_from_nothing():
    metric = METRICS.build(dict(type='ClassAccuracy', topk=(1, )))
    found = []
    for label in (0, 1):
        metric.process({}, [dict(gt_label=label, pred_score=torch.tensor([1., 0.]))])
        found.append(metric.evaluate(1)['top1'])
    assert found == [100, 0]


TWO_PROCESSES = """
    import json
    import sys
    import numpy as np
    import torch
    import torch.distributed as dist
    from mmengine.dataset import DefaultSampler
    import mmseg_encstdc
    from mmseg.registry import METRICS

    rank, store, pairs, out = int(sys.argv[1]), *sys.argv[2:]
    dist.init_process_group('gloo', init_method='file://' + store, rank=rank,
                            world_size=2)
    with np.load(pairs) as file:
        labels, scores = file['labels'], torch.as_tensor(file['scores'])
    found = {}
    for count in (7, 6, 1):
        metric = METRICS.build(dict(type='ClassAccuracy'))
        for i in DefaultSampler(range(count), shuffle=False):
            metric.process({}, [dict(gt_label=labels[i], pred_score=scores[i])])
        found[count] = metric.evaluate(count)
    with open(f'{out}/{rank}.json', 'w') as file:
        json.dump(found, file)
    dist.barrier()
    dist.destroy_process_group()
"""


def test_two_processes_find_what_one_finds(tmp_path, root):
    pairs = random_pairs(7, classes=8)
    labels, scores = zip(*pairs)
    np.savez(tmp_path / 'pairs.npz', labels=labels, scores=np.stack(scores))
    (tmp_path / 'script.py').write_text(textwrap.dedent(TWO_PROCESSES))
    ranks = [
        subprocess.Popen(
            [sys.executable, '-W', 'ignore', str(tmp_path / 'script.py'), str(rank),
             str(tmp_path / 'store'), str(tmp_path / 'pairs.npz'), str(tmp_path)],
            cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(root)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=120)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], errors
    for rank in (0, 1):
        found = json.loads((tmp_path / f'{rank}.json').read_text())
        assert found == {str(n): evaluate(pairs[:n]) for n in (7, 6, 1)}
