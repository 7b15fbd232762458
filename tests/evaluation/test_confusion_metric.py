"""ConfusionMetric: measures, counts, log, files, several processes."""
import json
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mmengine.logging import MMLogger
from mmseg.registry import METRICS
from PIL import Image
from two_processes import run_two_processes

from mmseg_encstdc.errors import InputError
from mmseg_encstdc.evaluation import ConfusionMetric, measures

NAMES = ('PA', 'mPA', 'mIoU', 'FWIoU')


def sample_of(prediction, label=None, **meta):
    """Return the sample of an image that an evaluator gives to a metric."""
    sample = dict(pred_sem_seg=dict(data=torch.as_tensor(prediction)[None]), **meta)
    if label is not None:
        sample['gt_sem_seg'] = dict(data=torch.as_tensor(label)[None])
    return sample


def metric_of(classes, **kwargs):
    """Build the metric from a config and set the class names."""
    metric = METRICS.build(dict(type='ConfusionMetric', **kwargs))
    metric.dataset_meta = dict(classes=tuple(f'class{i}' for i in range(classes)))
    return metric


def evaluate(pairs, classes, **kwargs):
    """Return the measures, in percent, of (prediction, label) arrays."""
    metric = metric_of(classes, **kwargs)
    for i, (prediction, label) in enumerate(pairs):
        metric.process({}, [sample_of(prediction, label, img_path=f'{i}.jpg')])
    return metric.evaluate(len(pairs))


def random_pairs(count, classes, size=(5, 7), ignored=0.2):
    """Draw predictions and labels; some are equal and some ignored."""
    pairs = []
    for _ in range(count):
        label = np.random.randint(0, classes, size)
        other = np.random.randint(0, classes, size)
        prediction = np.where(np.random.rand(*size) < .6, label, other)
        label[np.random.rand(*size) < ignored] = 255
        pairs.append((prediction, label))
    return pairs


def pixel_loop(prediction, label, classes, ignore_index=255):
    """Compute the measures by their definitions, in percent, pixel by pixel."""
    pairs = zip(label.ravel().tolist(), prediction.ravel().tolist())
    pixels = [(t, p) for t, p in pairs if t != ignore_index]
    ious, accuracies, weighted = [], [], 0.
    for c in range(classes):
        both = sum(t == c and p == c for t, p in pixels)
        either = sum(t == c or p == c for t, p in pixels)
        labelled = sum(t == c for t, p in pixels)
        if either:
            ious.append(both / either)
            weighted += labelled / len(pixels) * both / either
        if labelled:
            accuracies.append(both / labelled)
    hits = sum(t == p for t, p in pixels)
    return dict(PA=100 * hits / len(pixels),
                mPA=100 * sum(accuracies) / len(accuracies),
                mIoU=100 * sum(ious) / len(ious), FWIoU=100 * weighted)


@pytest.fixture
def logged(caplog):
    """Return the messages of MMEngine's current logger."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.removeHandler(caplog.handler)


# --- Measures ----------------------------------------------------------------

maps = hnp.arrays(np.int64, (3, 5), elements=st.integers(0, 3))


@given(maps, maps, hnp.arrays(bool, (3, 5)))
def test_measures_match_pixel_loop(prediction, label, ignored):
    ignored[0, 0] = False
    label = np.where(ignored, 255, label)
    found = evaluate([(prediction, label)], classes=4)
    expected = pixel_loop(prediction, label, classes=4)
    assert found == pytest.approx(expected, abs=1e-10)


def test_measures_of_small_matrix():
    found = measures(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]))
    assert found['PA'] == 7 / 10
    assert found['Acc'][:2].tolist() == [3 / 4, 4 / 6]
    assert found['IoU'][:2].tolist() == [3 / 6, 4 / 7]
    assert math.isnan(found['IoU'][2]) and math.isnan(found['Acc'][2])
    assert found['mPA'] == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert found['mIoU'] == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert found['FWIoU'] == pytest.approx(.4 * 3 / 6 + .6 * 4 / 7)


def test_measures_of_class_without_labels():
    found = measures(np.array([[3, 1], [0, 0]]))
    assert found['IoU'].tolist() == [3 / 4, 0]
    assert found['mIoU'] == 3 / 8
    assert math.isnan(found['Acc'][1])
    assert found['mPA'] == 3 / 4


def test_measures_of_large_counts_are_exact():
    many = 2**24
    results = [(np.array([0, 3]), np.array([many, many])),
               (np.array([0, 1]), np.array([1, 1]))] * 3
    matrix = ConfusionMetric.confusion(results, 2)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[3 * many + 3, 3], [0, 3 * many]]
    assert measures(matrix)['PA'] == (6 * many + 3) / (6 * many + 6)


def test_measures_match_mmsegmentation(logged):
    from mmseg.evaluation import IoUMetric
    pairs = random_pairs(6, classes=5)
    stock = IoUMetric(iou_metrics=['mIoU'])
    stock.dataset_meta = dict(classes=tuple('abcde'))
    for prediction, label in pairs:
        stock.process({}, [sample_of(prediction, label)])
    theirs = stock.evaluate(len(pairs))
    ours = evaluate(pairs, classes=5)
    for name, other in (('PA', 'aAcc'), ('mPA', 'mAcc'), ('mIoU', 'mIoU')):
        assert round(ours[name], 2) == pytest.approx(theirs[other], abs=1e-6)


# --- Counts ------------------------------------------------------------------


def test_counts_exclude_ignored_pixels():
    prediction, label = np.array([[0, 1, 1]]), np.array([[0, 1, 255]])
    assert evaluate([(prediction, label)], classes=2)['PA'] == 100


def test_counts_use_ignore_index():
    prediction, label = np.array([[0, 1, 1]]), np.array([[0, 0, 7]])
    assert evaluate([(prediction, label)], 2, ignore_index=7)['PA'] == 50


def test_counts_of_ignored_image_are_zero():
    pairs = random_pairs(2, classes=3)
    nothing = (np.zeros((4, 4), int), np.full((4, 4), 255))
    assert evaluate([*pairs, nothing], classes=3) == evaluate(pairs, classes=3)


def test_measures_without_labels_are_nan():
    nothing = (np.zeros((4, 4), int), np.full((4, 4), 255))
    found = evaluate([nothing], classes=3)
    assert set(found) == set(NAMES)
    assert all(math.isnan(value) for value in found.values())


def test_counts_sum_to_confusion_matrix():
    pairs = random_pairs(5, classes=6)
    metric, dense = metric_of(6), np.zeros((6, 6), int)
    for prediction, label in pairs:
        metric.process({}, [sample_of(prediction, label)])
        for t, p in zip(label.ravel(), prediction.ravel()):
            if t != 255:
                dense[t, p] += 1
    assert np.array_equal(metric.confusion(metric.results, 6), dense)


def test_counts_are_sparse():
    metric = metric_of(150)
    metric.process({}, [sample_of(np.array([[7, 7, 9]]), np.array([[7, 7, 8]]))])
    (cells, counts), = metric.results
    assert cells.tolist() == [7 * 150 + 7, 8 * 150 + 9]
    assert counts.tolist() == [2, 1]


def test_counts_accept_any_integer_type():
    (prediction, label), = random_pairs(1, classes=20)
    expected = evaluate([(prediction, label)], classes=20)
    for kind in (np.uint8, np.int32, np.int64):
        assert evaluate([(prediction, label.astype(kind))], classes=20) == expected
        assert evaluate([(prediction.astype(kind), label)], classes=20) == expected


def test_measures_do_not_depend_on_order():
    pairs = random_pairs(7, classes=4)
    assert evaluate(pairs, classes=4) == evaluate(pairs[::-1], classes=4)


def test_confusion_metric_evaluate_resets_results():
    metric, pairs = metric_of(3), random_pairs(2, classes=3)
    first = []
    for pair in pairs:
        metric.process({}, [sample_of(*pair)])
        first.append(metric.evaluate(1))
    assert first == [evaluate([pair], classes=3) for pair in pairs]
    assert first[0] != first[1]


@pytest.mark.parametrize('prediction, label, message', [
    ([[0, 3]], [[0, 1]], 'prediction holds values 0 to 3'),
    ([[-1, 2]], [[0, 1]], 'prediction holds values -1 to 2'),
    ([[0, 2]], [[0, 3]], 'label holds values 0 to 3'),
    ([[0, 2]], [[-1, 2]], 'label holds values -1 to 2'),
])
def test_counts_reject_values_outside_classes(
        prediction, label, message):
    with pytest.raises(ValueError, match=f'{message}, .* has classes 0 to 2'):
        evaluate([(np.array(prediction), np.array(label))], classes=3)


def test_counts_accept_any_prediction_at_ignored_pixels():
    found = evaluate([(np.array([[0, 9]]), np.array([[0, 255]]))], classes=3)
    assert found['PA'] == 100


def test_confusion_metric_prefixes_names():
    found = evaluate(random_pairs(1, classes=3), classes=3, prefix='val')
    assert set(found) == {f'val/{name}' for name in NAMES}


# --- The log -----------------------------------------------------------------


def test_log_names_classes_left_out(logged):
    prediction, label = np.array([[0, 0, 2, 0]]), np.array([[0, 0, 0, 255]])
    evaluate([(prediction, label)], classes=4)
    text = '\n'.join(logged())
    rows = [line.split() for line in text.splitlines() if line.startswith('| class')]
    cells = {row[1]: (row[3], row[5]) for row in rows[1:]}
    assert cells == dict(class0=('66.67', '66.67'), class1=('nan', 'nan'),
                         class2=('0.00', 'nan'), class3=('nan', 'nan'))
    assert 'mIoU leaves out 2 classes that do not occur: class1, class3' in text
    assert ('mPA leaves out 3 classes that do not occur: class1, class2, class3'
            in text)


def test_log_of_all_classes_names_none_left_out(logged):
    evaluate([(np.array([[0, 1]]), np.array([[0, 1]]))], classes=2)
    assert any('IoU of each class' in message for message in logged())
    assert not any('leaves out' in message for message in logged())


# --- Files -------------------------------------------------------------------


def read(path):
    with Image.open(path) as image:
        assert image.mode == 'L'
        return np.asarray(image)


def test_predictions_are_written_as_png(tmp_path):
    metric = metric_of(5, output_dir=str(tmp_path / 'out'))
    pairs = random_pairs(2, classes=5)
    names = ['first.jpg', 'street/second.v2.png']
    metric.process({}, [sample_of(*pair, img_path=f'/data/{name}')
                        for pair, name in zip(pairs, names)])
    for (prediction, _), stem in zip(pairs, ('first', 'second.v2')):
        assert np.array_equal(read(tmp_path / 'out' / f'{stem}.png'), prediction)


@pytest.mark.parametrize('raw, expected', [
    (None, [0, 149, 7]), (range(1, 151), [1, 150, 8])])
def test_predictions_are_written_as_class_ids_or_raw_ids(tmp_path, raw, expected):
    metric = metric_of(150, output_dir=str(tmp_path), raw_ids=raw)
    prediction = np.array([[0, 149, 7]])
    metric.process({}, [sample_of(prediction, prediction, img_path='a.jpg',
                                  reduce_zero_label=True)])
    assert read(tmp_path / 'a.png').tolist() == [expected]


def test_metrics_json_holds_measures_and_confusion(tmp_path):
    prediction, label = np.array([[0, 0, 2, 0]]), np.array([[0, 0, 0, 255]])
    found = evaluate([(prediction, label)], classes=4, output_dir=str(tmp_path))
    written = json.loads((tmp_path / 'metrics.json').read_text())
    assert {name: written[name] for name in NAMES} == found
    assert written['IoU'] == dict(class0=pytest.approx(200 / 3), class1=None,
                                  class2=0, class3=None)
    assert written['Acc']['class0'] == pytest.approx(200 / 3)
    assert written['confusion'] == [[2, 0, 1, 0]] + [[0] * 4] * 3


def test_metrics_json_without_labels_is_valid_json(tmp_path):
    nothing = (np.zeros((2, 2), int), np.full((2, 2), 255))
    evaluate([nothing], classes=2, output_dir=str(tmp_path))
    text = (tmp_path / 'metrics.json').read_text()

    def refuse(name):
        raise AssertionError(f'{name} is not JSON')

    written = json.loads(text, parse_constant=refuse)
    assert written['confusion'] == [[0, 0], [0, 0]]


def test_format_only_writes_predictions(tmp_path, logged):
    metric = metric_of(5, output_dir=str(tmp_path), format_only=True)
    prediction = np.array([[4, 1]])
    for name in ('a', 'b'):
        metric.process({}, [sample_of(prediction, img_path=f'{name}.jpg')])
    assert metric.evaluate(2) == {}
    assert sorted(os.listdir(tmp_path)) == ['a.png', 'b.png']
    assert read(tmp_path / 'b.png').tolist() == [[4, 1]]
    assert f'predictions are in {tmp_path}' in logged()


def test_format_only_requires_output_dir():
    with pytest.raises(ValueError, match='format_only needs an output_dir'):
        metric_of(5, format_only=True)


def test_without_output_dir_no_file_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluate(random_pairs(1, classes=3), classes=3)
    assert os.listdir(tmp_path) == []


# --- Several processes -------------------------------------------------------

TWO_PROCESSES = """
with np.load(f'{folder}/pairs.npz') as file:
    images = list(zip(file['predictions'], file['labels']))
for count, size, round_up in ((6, 1, True), (5, 1, True), (5, 2, True), (5, 3, True),
                              (5, 2, False), (1, 1, True)):
    name = f'{count}_{size}_{round_up}'
    metric = METRICS.build(dict(
        type='ConfusionMetric', output_dir=f'{folder}/{name}_{rank}'))
    metric.dataset_meta = dict(classes=tuple('abcd'))
    sampler = DefaultSampler(range(count), shuffle=False, round_up=round_up)
    for batch in torch.utils.data.BatchSampler(sampler, size, False):
        metric.process({}, [dict(
            pred_sem_seg=dict(data=torch.as_tensor(images[i][0])[None]),
            gt_sem_seg=dict(data=torch.as_tensor(images[i][1])[None]),
            img_path=f'{i}.jpg') for i in batch])
    found[name] = metric.evaluate(count)
"""


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory):
    """Return pairs, the output folder, and the measures of two processes."""
    folder = tmp_path_factory.mktemp('two_processes')
    np.random.seed(0)
    pairs = random_pairs(6, classes=4)
    predictions, labels = map(np.stack, zip(*pairs))
    np.savez(folder / 'pairs.npz', predictions=predictions, labels=labels)
    return pairs, folder, run_two_processes(folder, TWO_PROCESSES)


@pytest.mark.parametrize('name', ['6_1_True', '5_1_True', '5_2_True', '5_3_True',
                                  '5_2_False', '1_1_True'])
def test_confusion_metric_of_two_processes_matches_one(two_processes, tmp_path, name):
    """Images, batch size and round_up of the sampler; 5 images are shared unevenly."""
    pairs, folder, ranks = two_processes
    alone = evaluate(pairs[:int(name[0])], classes=4, output_dir=str(tmp_path))
    for found in ranks:
        assert found[name] == alone
    ours = json.loads((tmp_path / 'metrics.json').read_text())
    theirs = json.loads((folder / f'{name}_0' / 'metrics.json').read_text())
    assert theirs['confusion'] == ours['confusion']


def test_first_process_writes_metrics_json(two_processes):
    _, folder, _ = two_processes
    assert (folder / '5_1_True_0' / 'metrics.json').exists()
    assert not (folder / '5_1_True_1' / 'metrics.json').exists()


def test_predictions_reject_repeated_name(tmp_path):
    metric = metric_of(2, output_dir=str(tmp_path))
    one = np.zeros((2, 2), np.int64)
    metric.process({}, [sample_of(one, one, img_path='a/same.jpg')])
    metric.process({}, [sample_of(one, one, img_path='a/same.jpg')])  # next epoch
    with pytest.raises(ValueError, match='a/same.jpg and b/same.jpg'):
        metric.process({}, [sample_of(one, one, img_path='b/same.jpg')])


def test_count_rejects_label_of_another_size():
    label = np.zeros((2, 3), np.int64)
    with pytest.raises(InputError, match='a label is 3 x 2 but its prediction 4 x 2'):
        evaluate([(np.zeros((2, 4), np.int64), label)], 2)
