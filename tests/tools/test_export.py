"""Compare ONNX files with PyTorch, on tiny networks of the real structure."""
import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_encstdc.apis import exporting, load, predict
from mmseg_encstdc.errors import InputError

onnx = pytest.importorskip('onnx')
ROOT = Path(__file__).parents[2]
RUNTIME = importlib.util.find_spec('onnxruntime') is not None


def tiny_encnet():
    """Return the config of EncNet with lateral connections and 16 channels."""
    cfg = Config.fromfile(ROOT / 'configs/encnet_r18_camvid.py')
    cfg.model.backbone.update(base_channels=8, stem_channels=8)
    cfg.model.decode_head.update(
        in_channels=[16, 32, 64], channels=16, num_codes=4, add_lateral=True)
    cfg.model.auxiliary_head.update(in_channels=32, channels=8)
    return cfg


def tiny_stdc(scale=1):
    """Return the config of STDC1 with a sixteenth of the channels."""
    cfg = Config.fromfile(ROOT / 'configs/stdc1_camvid.py')
    net = cfg.model.backbone
    net.backbone_cfg.channels = (8, 8, 16, 32, 64)
    net.update(last_in_channels=(64, 32), out_channels=16)
    net.ffm_cfg.update(in_channels=32, out_channels=16)
    cfg.model.decode_head.update(in_channels=16, channels=16)
    cfg.model.test_cfg.scale = scale
    for head, channels in zip(cfg.model.auxiliary_head, (16, 16, 16)):
        head.update(in_channels=channels, channels=8)
    return cfg


CONFIGS = dict(encnet=tiny_encnet, stdc=tiny_stdc,
               stdc_half=lambda: tiny_stdc(0.5))


@pytest.fixture(scope='module', params=CONFIGS)
def files(request, tmp_path_factory):
    """Write a config and a checkpoint of it; return their paths."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    cfg = CONFIGS[request.param]()
    cfg.dump(folder / 'net.py')
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if 'running' in key or value.dim() == 1 and value.is_floating_point():
                value.add_(0.2 * torch.rand_like(value))
    torch.save(dict(state_dict=model.state_dict(),
                    meta=dict(cfg=cfg.pretty_text)), folder / 'net.pth')
    return folder / 'net.py', folder / 'net.pth'


@pytest.fixture
def model(files):
    return load(files[1], files[0], 'cpu')


def export(monkeypatch, capsys, *words):
    """Run the tool in this process; return its output, or its error line."""
    monkeypatch.setattr(sys, 'argv', ['export.py', *map(str, words)])
    try:
        runpy.run_path(str(ROOT / 'tools/export.py'), run_name='__main__')
    except SystemExit as end:
        assert end.code not in (0, None)
        assert '\n' not in str(end.code)
        return str(end.code)
    return capsys.readouterr().out


def run(path, image):
    return exporting._runner(path)[0](image)


def test_export_logits_equal_inference(files, model, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'net.onnx'
    printed = export(monkeypatch, capsys, *files, out, '--shape', '66x80')
    assert 'largest difference' in printed
    graph = onnx.load(out).graph
    assert {node.domain for node in graph.node} <= {'', 'ai.onnx'}
    assert not [w.name for w in graph.initializer if 'auxiliary' in w.name]
    image = torch.randn(1, 3, 66, 80)
    size = dict(ori_shape=(66, 80), img_shape=(66, 80))
    with torch.no_grad():
        expected = model.inference(image, [size]).numpy()
    np.testing.assert_allclose(
        run(out, image.numpy()), expected, atol=1e-4 * abs(expected).max())
    assert list(tmp_path.iterdir()) == [out]  # nothing beside it


def test_export_dynamic_labels_equal_predict(
        files, model, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'net.onnx'
    printed = export(monkeypatch, capsys, *files, out, '--shape', '64x96',
                     '--labels', '--with-preprocess', '--dynamic')
    assert 'of the labels differ' in printed
    for height, width in ((70, 98), (64, 96)):
        image = np.random.default_rng(height).integers(
            0, 256, (height, width, 3), np.uint8)
        image = cv2.blur(image, (9, 9))
        labels = run(out, image[None])[0]
        assert labels.dtype == np.int64
        assert (labels == predict(model, image)).mean() > 0.999


def test_export_onnx_without_onnxruntime_uses_onnx_evaluator(
        model, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        exporting.importlib.util, 'find_spec',
        lambda name: None if name == 'onnxruntime' else find(name))
    report = exporting.export_onnx(model, tmp_path / 'net.onnx', (512, 1024))
    assert 'evaluator of onnx' in report['by']
    assert report['shapes'] == [(1, *exporting.EVALUATOR_SIZE)]
    assert report['difference'] < 1e-4 * report['largest']
    assert list(tmp_path.iterdir()) == [tmp_path / 'net.onnx']


def test_export_onnx_deletes_file_that_differs(model, tmp_path, monkeypatch):
    real = exporting._inference
    monkeypatch.setattr(exporting, '_inference',
                        lambda *args: real(*args).mul(1.01))
    with pytest.raises(exporting.ExportError, match='differs from PyTorch'):
        exporting.export_onnx(model, tmp_path / 'net.onnx', (64, 64))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('of', ['file', 'network'])
def test_export_onnx_deletes_file_or_network_with_nan(model, tmp_path, monkeypatch, of):
    if of == 'network':
        real = exporting._inference
        monkeypatch.setattr(exporting, '_inference',
                            lambda *args: real(*args).mul(float('nan')))
    else:
        real = exporting._runner
        monkeypatch.setattr(exporting, '_runner', lambda path: (
            lambda image, run=real(path)[0]: run(image) * float('nan'), ''))
    with pytest.raises(exporting.ExportError, match='differs from PyTorch by nan'):
        exporting.export_onnx(model, tmp_path / 'net.onnx', (64, 64))
    assert not list(tmp_path.iterdir())


def test_export_onnx_names_missing_folder(model, tmp_path):
    with pytest.raises(InputError, match='the folder .*none does not exist'):
        exporting.export_onnx(model, tmp_path / 'none' / 'net.onnx', (64, 64))


@pytest.mark.parametrize('files', ['stdc'], indirect=True)
@pytest.mark.parametrize('words, message', [
    (['--cfg-options', 'model.test_cfg.mode=slide'], 'mode is slide'),
    (['--shape', '64'], '--shape must be HEIGHTxWIDTH in pixels'),
    (['--opset', '9'], 'opset must be 13 to 20, got 9'),
])
def test_export_rejects_wrong_arguments(
        files, words, message, tmp_path, monkeypatch, capsys):
    line = export(monkeypatch, capsys, *files, tmp_path / 'x.onnx', *words)
    assert line.startswith('error: ') and message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('files', ['stdc'], indirect=True)
def test_export_command_ends_with_one_line(files, tmp_path):
    done = subprocess.run(
        [sys.executable, 'tools/export.py', *map(str, files), 'x.txt'],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        'error: OUT must end with .onnx, got x.txt')


@pytest.mark.parametrize('files', ['encnet'], indirect=True)
def test_check_exportable_rejects_test_time_augmentation(model):
    wrapped = torch.nn.Module()
    wrapped.module = model
    with pytest.raises(InputError, match='without test-time augmentation'):
        exporting.check_exportable(wrapped)


@pytest.mark.parametrize('files', ['stdc'], indirect=True)
def test_left_out_names_resize(model):
    assert exporting.left_out(model) == []
    model.cfg.test_dataloader.dataset.pipeline.insert(
        1, dict(type='Resize', scale=(8, 8)))
    assert exporting.left_out(model) == ['Resize']


def test_export_onnx_writes_class_names(model, tmp_path):
    exporting.export_onnx(model, tmp_path / 'net.onnx', (32, 32))
    meta = onnx.load(tmp_path / 'net.onnx').metadata_props
    names = {entry.key: entry.value for entry in meta}['classes'].split('\n')
    assert names == list(model.dataset_meta['classes'])
