"""Test the boundary F-score against a definition over all pairs of pixels."""
import numpy as np
import pytest
import torch

from mmseg_encstdc.errors import InputError
from mmseg_encstdc.evaluation import BoundaryMetric, boundary_scores

CLASSES = 3


def plain_boundary(labels, index, ignored):
    """Return the boundary pixels of a class as (row, column)."""
    height, width = labels.shape
    found = []
    for y, x in zip(*np.nonzero(labels == index)):
        around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
                  if 0 <= y + dy < height and 0 <= x + dx < width]
        near = [(v, u) for v, u in around if abs(v - y) + abs(u - x) == 1]
        if not any(ignored[p] for p in around) and any(
                labels[p] != index for p in near):
            found.append((y, x))
    return np.array(found, float).reshape(-1, 2)


def plain_scores(prediction, label, tolerance, ignore_index=255):
    """Compute what boundary_scores does from the distances of all pairs."""
    ignored = label == ignore_index
    limit = tolerance * np.hypot(*label.shape)
    scores = []
    for index in range(CLASSES):
        a, b = (plain_boundary(labels, index, ignored)
                for labels in (prediction, label))
        if not len(a) or not len(b):
            scores.append(np.nan if len(a) == len(b) else 0)
            continue
        near = np.linalg.norm(a[:, None] - b[None], axis=2) <= limit
        precision, recall = near.any(1).mean(), near.any(0).mean()
        scores.append(2 * precision * recall / max(precision + recall, 1e-12))
    return np.array(scores)


@pytest.mark.parametrize('tolerance', [0.03, 0.1])
@pytest.mark.parametrize('seed', range(6))
def test_boundary_scores_equal_definition(seed, tolerance):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(9, 30, 2)
    label, prediction = (
        rng.integers(0, CLASSES, (5, 5)).repeat(6, 0).repeat(6, 1)[:height, :width]
        for _ in range(2))
    label[rng.integers(height), rng.integers(width)] = 255
    np.testing.assert_allclose(
        boundary_scores(prediction, label, CLASSES, tolerance),
        plain_scores(prediction, label, tolerance), atol=1e-6)


def halves(column, size=(60, 80)):
    """Return a label map whose left part is 0, and whose right part is 1."""
    labels = np.zeros(size, np.int64)
    labels[:, column:] = 1
    return labels


@pytest.mark.parametrize('shift, expected', [(0, 1), (3, 1), (4, 0)])
def test_boundary_scores_tolerate_a_shift(shift, expected):
    scores = boundary_scores(halves(40 + shift), halves(40), CLASSES, 0.03)
    assert scores[:2].tolist() == [expected] * 2 and np.isnan(scores[2])


def test_boundary_scores_ignore_pixels_beside_void():
    label = halves(40)
    label[:, 39:41] = 255
    assert np.isnan(boundary_scores(halves(40), label, CLASSES)).all()


def test_boundary_metric_rejects_label_of_other_size():
    metric = BoundaryMetric()
    metric.dataset_meta = dict(classes=('a', 'b'))
    sizes = dict(pred_sem_seg=(6, 8), gt_sem_seg=(3, 4))
    with pytest.raises(InputError, match='a label is 4 x 3 but its prediction 8 x 6'):
        metric.process({}, [{name: dict(data=torch.zeros(1, *size, dtype=torch.int64))
                             for name, size in sizes.items()}])


def test_boundary_metric_averages_over_images_and_classes():
    metric = BoundaryMetric()
    metric.dataset_meta = dict(classes=('a', 'b', 'c'))
    empty = np.zeros((60, 80), np.int64)
    for prediction, label in ((halves(40), halves(40)), (empty, halves(40)),
                              (empty, empty)):
        metric.process({}, [dict(
            pred_sem_seg=dict(data=torch.from_numpy(prediction)[None]),
            gt_sem_seg=dict(data=torch.from_numpy(label)[None]))])
    assert metric.compute_metrics(metric.results) == dict(BF=50.0, mBF=50.0)
