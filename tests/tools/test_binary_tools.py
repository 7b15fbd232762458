"""Binary networks, ids of label files and load_from, through the tools."""
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from tool_process import run_tool

from mmseg_encstdc.apis import load, predict

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
THRESHOLD = 0.4
IMAGES = 3
# A tiny EncNet on two classes, whose label files have 1 and 2; 0 is ignored.
CONFIG = '''
_base_ = '{root}/configs/encnet_r18_camvid.py'
data = dict(num_workers=0, persistent_workers=False, dataset=dict(
    type='BaseSegDataset', data_root='{data}', reduce_zero_label=True,
    metainfo=dict(classes=('background', 'crack'), palette=[[0, 0, 0], [255, 0, 0]])))
train_dataloader = dict(batch_size=2, **data)
val_dataloader = data
test_dataloader = data
binary = dict(num_classes=2, {head})
model = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    decode_head=dict(in_channels=[16, 32, 64], channels=16, num_codes=4, **binary),
    auxiliary_head=dict(in_channels=32, channels=8, **binary))
test_modes = dict(chip=dict(test_cfg=dict(
                      crop_size=64, base_size=120, scales=(0.5, 1.0))),
                  slide=dict(test_cfg=dict(crop_size=(48, 48), stride=(32, 32))))
'''
HEADS = dict(
    two='',
    one=f'out_channels=1, threshold={THRESHOLD}, loss_decode=dict('
    "type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True)",
    ohem=f"out_channels=1, threshold={THRESHOLD}, loss_decode=dict("
    "_delete_=True, type='OhemCELoss')")


def tool(name, *arguments):
    """Run a tool that must succeed; return its output."""
    done = run_tool(f'{name}.py', *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def error_of(name, *arguments):
    """Run a tool that must fail; return its one line."""
    done = run_tool(f'{name}.py', *arguments)
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    line, = (line for line in done.stderr.splitlines() if 'error' in line)
    return line


def write_data(folder):
    """Write bright squares, 2 in the labels, on dark ground, 1, with a 0 border."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (folder / kind / split).mkdir(parents=True)
        for i in range(IMAGES):
            label = rng.integers(1, 3, (8, 10), np.uint8).repeat(12, 0).repeat(12, 1)
            image = (label[..., None] * 100 - 60 + rng.integers(
                0, 30, (*label.shape, 3))).astype(np.uint8)
            label[:6] = 0
            cv2.imwrite(str(folder / f'images/{split}/{i}.jpg'), image)
            cv2.imwrite(str(folder / f'labels/{split}/{i}.png'), label)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('binary')
    write_data(folder)
    return folder


def train(name, data, folder):
    """Train a network; return its config, checkpoint, channels and output."""
    config = folder / 'net.py'
    config.write_text(CONFIG.format(root=ROOT, data=data, head=HEADS[name]))
    output = tool('train', config, '--work-dir', folder / 'work', '--max-iters', 40,
                  '--cfg-options', *small_crops(config))
    return config, folder / 'work/iter_40.pth', 1 if HEADS[name] else 2, output


@pytest.fixture(scope='module')
def one(data, tmp_path_factory):
    return train('one', data, tmp_path_factory.mktemp('one'))


@pytest.fixture(scope='module')
def two(data, tmp_path_factory):
    return train('two', data, tmp_path_factory.mktemp('two'))


@pytest.fixture(params=['one', 'two'])
def net(request):
    return request.getfixturevalue(request.param)


def small_crops(config):
    """Return the options that make the crops of training small."""
    pipeline = Config.fromfile(config).train_dataloader.dataset.pipeline
    return [f'train_dataloader.dataset.pipeline.{i}.{key}=(64,64)'
            for i, step in enumerate(pipeline)
            for key in ('size', 'crop_size') if key in step]


def labels_in(folder):
    return {path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            for path in sorted(Path(folder).glob('*.png'))}


def confusion_of(found, data):
    """Return the confusion matrix of predicted class ids."""
    matrix = np.zeros((2, 2), int)
    for stem, label in found.items():
        truth = cv2.imread(str(data / f'labels/val/{stem}.png'), cv2.IMREAD_UNCHANGED)
        for i in range(2):
            for j in range(2):
                matrix[i, j] += ((truth == i + 1) & (label == j)).sum()
    return matrix.tolist()


@pytest.mark.parametrize('name', HEADS)
def test_training_of_binary_network_gives_no_advice(name, request, data, tmp_path):
    *_, output = (train(name, data, tmp_path) if name == 'ohem'
                  else request.getfixturevalue(name))
    assert 'For binary segmentation' not in output
    assert 'Traceback' not in output and 'mIoU' in output
    losses = [float(x) for x in re.findall(r'decode\.loss_\w+: ([\d.]+)', output)]
    assert losses and all(value > 0.01 for value in losses)


@pytest.mark.parametrize('mode', [(), ('--mode', 'slide'), ('--mode', 'chip'),
                                  ('--tta', )], ids=str)
def test_test_scores_written_labels_in_every_mode(net, data, tmp_path, mode):
    config, checkpoint, channels, _ = net
    tool('test', config, checkpoint, '--work-dir', tmp_path / 'w', '--out',
         tmp_path, *mode)
    found = labels_in(tmp_path)
    assert len(found) == IMAGES
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert metrics['confusion'] == confusion_of(found, data)
    # The squares are easy: neither class is all there is.
    share = np.mean([label.mean() for label in found.values()])
    assert 0.05 < share < 0.95, share
    if not mode:
        model = load(checkpoint, config, device='cpu')
        for path, (labels, scores) in predict(model, data / 'images/val',
                                              with_scores=True):
            assert np.array_equal(labels, found[path.stem])
            assert scores.shape[0] == channels
            expected = (scores[0] > THRESHOLD if channels == 1 else scores.argmax(0))
            assert np.array_equal(labels, expected)


def test_predict_and_test_write_the_same_ids(one, data, tmp_path):
    config, checkpoint, _, _ = one
    written = []
    for raw in ((), ('--raw-ids', )):
        folder = tmp_path / ('raw' if raw else 'ids')
        tool('test', config, checkpoint, '--work-dir', tmp_path / 'w', '--out',
             folder / 'test', *raw)
        tool('predict', config, checkpoint, data / 'images/val', '--device', 'cpu',
             '--out', folder / 'predict', *raw)
        by_test = labels_in(folder / 'test')
        by_predict = labels_in(folder / 'predict/labels')
        assert by_test.keys() == by_predict.keys() and len(by_test) == IMAGES
        assert all(np.array_equal(by_test[k], by_predict[k]) for k in by_test)
        written.append(by_test)
    assert all(np.array_equal(written[0][k] + 1, written[1][k]) for k in written[0])
    assert {0, 1} >= set(np.unique(written[0]['0']))


def test_out_of_mmsegmentation_metric_has_class_ids(one, data, tmp_path):
    config, checkpoint, _, _ = one
    stock = tmp_path / 'stock.py'
    stock.write_text(f"_base_ = '{config}'\n"
                     "test_evaluator = dict(_delete_=True, type='IoUMetric')\n")
    for raw in ((), ('--raw-ids', )):
        output = tool('test', stock, checkpoint, '--work-dir', tmp_path / 'w', '--out',
                      tmp_path / f'out{len(raw)}', *raw)
        assert 'mIoU' in output and 'aAcc' in output
    first, second = labels_in(tmp_path / 'out0'), labels_in(tmp_path / 'out1')
    assert len(first) == IMAGES and set(np.unique(first['0'])) <= {0, 1}
    assert all(np.array_equal(first[k] + 1, second[k]) for k in first)


@pytest.mark.parametrize('labels', [False, True], ids=['logits', 'labels'])
def test_exported_binary_network_matches_predict(net, data, tmp_path, labels):
    pytest.importorskip('onnx')
    onnxruntime = pytest.importorskip('onnxruntime')
    config, checkpoint, channels, _ = net
    path = tmp_path / 'net.onnx'
    output = tool('export', config, checkpoint, path, '--shape', '96x120',
                  '--with-preprocess', *(['--labels'] if labels else []))
    assert 'difference' in output.lower() or 'differ' in output.lower(), output
    image = cv2.imread(str(data / 'images/val/0.jpg'))
    found, = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider']).run(None, {'image': image[None]})
    expected = predict(load(checkpoint, config, device='cpu'), image)
    if not labels:
        assert found.shape[1] == channels
        found = (1 / (1 + np.exp(-found[:, 0])) > THRESHOLD
                 if channels == 1 else found.argmax(1))
    assert (found[0] == expected).mean() > 0.999


def test_tta_of_chip_scores_is_refused(one, tmp_path):
    config, checkpoint, _, _ = one
    chip = ('model.test_cfg.mode=chip', 'model.test_cfg.protocol=stdc',
            'model.test_cfg.crop_size=64', 'model.test_cfg.stride_rate=0.5')
    line = error_of('test', config, checkpoint, '--work-dir', tmp_path, '--tta',
                    '--cfg-options', *chip)
    assert '--cfg-options model.test_cfg.mode=whole' in line
    tool('test', config, checkpoint, '--work-dir', tmp_path, '--tta', '--cfg-options',
         *chip, 'model.test_cfg.mode=whole')


def test_test_refuses_classes_in_another_order(one, tmp_path):
    config, checkpoint, _, _ = one
    line = error_of(
        'test', config, checkpoint, '--work-dir', tmp_path, '--cfg-options',
        'test_dataloader.dataset.metainfo.classes=(crack,background)')
    assert 'class crack is 1 in checkpoint' in line


# --- load_from ---------------------------------------------------------------


def train_from(one, tmp_path, path, *options):
    return (one[0], '--work-dir', tmp_path / 'w', '--max-iters', 1, '--cfg-options',
            f'load_from={path}', *small_crops(one[0]), *options)


def lines_of_start(output):
    return [line for line in output.splitlines() if 'weights of the model' in line]


def test_load_from_says_in_one_line_what_fits(one, tmp_path):
    output = tool('train', *train_from(one, tmp_path, one[1]))
    line, = lines_of_start(output)
    count, total = map(int, re.search(r'(\d+) of (\d+) weights', line).groups())
    assert count == total > 100 and 'INFO' in line and 'not in it' not in line
    assert 'do not match' not in output and 'size mismatch' not in output


def test_load_from_of_other_classes_trains(one, tmp_path):
    content = torch.load(one[1])
    state = content['state_dict']
    for key in [key for key in state if 'conv_seg' in key or 'se_layer' in key]:
        state[key] = state[key].new_zeros(19, *state[key].shape[1:])
    torch.save(content, tmp_path / 'other.pth')
    output = tool('train', *train_from(one, tmp_path, tmp_path / 'other.pth'))
    line, = lines_of_start(output)
    assert 'not in it: decode_head.conv_seg, decode_head.se_layer' in line
    assert 'size mismatch' not in output
    # A state dict alone starts too, as in MMEngine.
    torch.save({f'module.{k}': v for k, v in state.items()}, tmp_path / 'bare.pth')
    again, = lines_of_start(
        tool('train', *train_from(one, tmp_path, tmp_path / 'bare.pth')))
    assert re.search(r'\d+ of \d+', again)[0] == re.search(r'\d+ of \d+', line)[0]


def test_load_from_of_other_network_is_refused_and_its_remedy_trains(one, tmp_path):
    state = {key[len('backbone.'):]: value
             for key, value in torch.load(one[1])['state_dict'].items()
             if key.startswith('backbone.')}
    path = tmp_path / 'backbone.pth'
    torch.save(state, path)
    line = error_of('train', *train_from(one, tmp_path, path))
    assert f'load_from {path} has none of the' in line
    remedy = re.search(r"model\.backbone\.init_cfg=(dict\(.*?\))", line)[1]
    config = tmp_path / 'started.py'
    config.write_text(f"_base_ = '{one[0]}'\n"
                      f'model = dict(backbone=dict(init_cfg={remedy}))\n')
    output = tool('train', config, *train_from(one, tmp_path, None)[1:])
    assert 'weights of the model' not in output
