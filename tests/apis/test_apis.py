"""Test loading and predicting, mostly on a random STDC1 for CamVid."""
import re
import warnings
from pathlib import Path

import cv2
import mmengine.registry
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.registry import MODELS

from mmseg_encstdc.apis import load, predict, read_image
from mmseg_encstdc.apis.embedded_config import embedded_config
from mmseg_encstdc.errors import InputError

CONFIGS = Path(__file__).parents[2] / 'configs'
STDC = str(CONFIGS / 'stdc1_camvid.py')
RESIZING = str(CONFIGS / 'encnet_r50s_ade.py')  # its test pipeline resizes


def save(path, config=STDC, cfg=None, **meta):
    """Write a checkpoint of random weights as training does; return its path."""
    cfg = cfg or Config.fromfile(config)
    model = MODELS.build(cfg.model)
    for value in model.state_dict().values():  # so that norms are not the identity
        if value.dim() == 1 and value.is_floating_point():
            value.add_(0.1 * torch.rand_like(value))
    meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(
        classes=[f'c{i}' for i in range(model.decode_head.num_classes)],
        palette=[[i, i, i] for i in range(model.decode_head.num_classes)]),
        **meta)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return str(path)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    mmengine.registry.init_default_scope('mmseg')
    torch.manual_seed(0)
    return save(tmp_path_factory.mktemp('run') / 'iter_1.pth')


@pytest.fixture(scope='module')
def model(checkpoint):
    return load(checkpoint, device='cpu')


@pytest.fixture
def image():
    return np.random.default_rng(3).integers(0, 256, (70, 98, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(5)
    for name in ('b.png', 'a.png', 'sub/c.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name),
                    rng.integers(0, 256, (66, 80, 3), np.uint8))
    (tmp_path / 'notes.txt').write_text('no image')
    return tmp_path


def refusal(call, *args, **kwargs):
    """Return the message of the InputError that a call raises, one line."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


# --- Label maps --------------------------------------------------------------


def test_predict_equals_inference_model(checkpoint, folder):
    stock = init_model(STDC, checkpoint, device='cpu')
    expected = inference_model(stock, str(folder / 'a.png'))
    labels, scores = predict(
        load(checkpoint, device='cpu'), folder / 'a.png', with_scores=True)
    assert labels.shape == (66, 80) and labels.dtype == np.uint8
    assert scores.shape == (11, 66, 80) and scores.dtype == np.float32
    assert np.array_equal(labels, expected.pred_sem_seg.data[0].numpy())
    assert np.array_equal(scores, expected.seg_logits.data.numpy())
    assert len(np.unique(labels)) > 1


def test_load_and_predict_warn_of_nothing(checkpoint, folder):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        predict(load(checkpoint, device='cpu'), folder / 'a.png')


def test_predict_equals_mmseg_inferencer(
        checkpoint, model, image):
    inferencer = MMSegInferencer(model=STDC, weights=checkpoint, device='cpu')
    assert np.array_equal(
        inferencer(image)['predictions'], predict(model, image))


def test_predict_returns_image_size_when_pipeline_resizes(tmp_path):
    cfg = Config.fromfile(RESIZING)
    cfg.model.backbone.depth, cfg.model.backbone.stem_channels = 18, 16
    cfg.model.backbone.init_cfg = None
    cfg.model.decode_head.update(in_channels=[128, 256, 512], channels=16)
    cfg.model.auxiliary_head.update(in_channels=256, channels=16)
    cfg.test_dataloader.dataset.pipeline[1].scale = (64, 64)
    path = save(tmp_path / 'small.pth', cfg=cfg)
    image = np.zeros((50, 90, 3), np.uint8)
    assert predict(load(path, device='cpu'), image).shape == (50, 90)


def test_predict_reads_arrays_files_and_rgb_alike(model, folder):
    image = read_image(folder / 'a.png')
    one = predict(model, str(folder / 'a.png'))
    assert np.array_equal(one, predict(model, image))
    assert np.array_equal(one, predict(model, image[..., ::-1], rgb=True))
    assert not np.array_equal(one, predict(model, image[..., ::-1]))


def test_predict_returns_list_for_list_and_iterator_for_folder(model, folder):
    paths = [folder / 'a.png', folder / 'b.png', folder / 'sub' / 'c.png']
    labels = predict(model, [paths[0], str(paths[1]), read_image(paths[2])])
    found = predict(model, folder)
    assert iter(found) is found  # one image at a time
    for expected, path, (name, label) in zip(labels, paths, found):
        assert name == path and np.array_equal(label, expected)
    assert predict(model, []) == []


@pytest.mark.parametrize('mode', ['chip', 'slide'])
def test_predict_uses_test_cfg_mode(checkpoint, image, mode):
    cfg = Config.fromfile(STDC)
    cfg.model.test_cfg = cfg.test_modes[mode].test_cfg
    cfg.model.test_cfg.crop_size = 64 if mode == 'chip' else (64, 64)
    if mode == 'slide':
        cfg.model.test_cfg.stride = (48, 48)
    whole = predict(load(checkpoint, device='cpu'), image, with_scores=True)[1]
    scores = predict(load(checkpoint, cfg, 'cpu'), image, with_scores=True)[1]
    assert scores.shape == whole.shape
    assert not np.allclose(scores, whole)


def test_load_builds_config_without_weights():
    model = load(config=STDC, weights=False, device='cpu')
    assert model.dataset_meta['classes'][0] == 'sky' and not model.training


# --- The config in a checkpoint ----------------------------------------------


def test_embedded_config_equals_its_file(tmp_path):
    for path in sorted(CONFIGS.glob('*.py')):
        cfg = Config.fromfile(path)
        if 'decode_head' not in cfg.model:
            continue
        read = embedded_config(dict(meta=dict(cfg=cfg.pretty_text)), 'x.pth')
        assert read.to_dict() == cfg.to_dict()


MODEL = 'model = dict(type="EncoderDecoder")\n'
SET = 'test_dataloader = dict(dataset=dict(type="CamVidDataset"))\n'


@pytest.mark.parametrize('text, message', [
    (None, 'holds no config'),
    (SET, 'has no model'),
    (MODEL, 'has no test_dataloader'),
    ('import os\n' + MODEL + SET, 'more than plain values .line 1'),
    (MODEL + SET + 'x = open("made", "w")', 'more than plain values .line 3'),
    ('model = [', 'more than plain values'),
    ('model = dict(type="os.mkdir", path="made")\n' + SET,
     'the type os.mkdir, which is not registered'),
    ('model = dict(type="EncoderDecoder", x=[dict(type="antigravity")])\n' + SET,
     'the type antigravity'),
    ('custom_imports = dict(imports=["my_own_sets"])\n' + MODEL + SET,
     'with the module my_own_sets; import it before'),
    ('custom_imports = 5\n' + MODEL + SET, 'name no modules'),
    ('custom_imports = dict(imports=5)\n' + MODEL + SET, 'name no modules'),
    ('default_scope = "antigravity"\n' + MODEL + SET,
     "scope 'antigravity', which is none of mmseg, mmengine"),
    ('default_scope = 5\n' + MODEL + SET, 'scope 5'),
    ('model = dict(type="EncoderDecoder", x=dict(_scope_="antigravity"))\n' + SET,
     "scope 'antigravity'"),
    ('model = dict(type="EncoderDecoder", x=dict(class_weight="http://a/b"))\n'
     + SET, 'names the file http://a/b as class_weight'),
    ('model = dict(type="EncoderDecoder", x=dict(file="w.PKL"))\n' + SET,
     'names the file w.PKL as file'),
    (MODEL + SET + 'a = {[]: 1}', 'more than plain values'),
    (MODEL + SET + 'a = {[1]}', 'more than plain values'),
    (MODEL + SET + 'a = dict(5)', 'more than plain values'),
    (MODEL + SET + 'a = dict(**5)', 'more than plain values'),
    (MODEL + SET + 'filename = 5', 'cannot be read'),
])
def test_embedded_config_rejects_unsafe_text(
        text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, meta=dict(cfg=text)), 'x.pth')
    line = refusal(load, 'x.pth', device='cpu')
    assert re.search(message, line) and 'x.pth' in line
    assert 'as config=' in line
    assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize('value', [
    5, 'text', torch.ones(2).to_sparse(), torch.ones(2, device='meta')])
def test_load_rejects_weights_that_are_not_tensors(value, tmp_path):
    torch.save(dict(state_dict={'w': value}, meta={}), tmp_path / 'x.pth')
    line = refusal(load, tmp_path / 'x.pth', STDC, device='cpu')
    assert "has 'w' in its state_dict, which is no plain tensor" in line


@pytest.mark.parametrize('meta', [[], 'text', 5, dict(classes=5)])
def test_load_rejects_classes_that_are_not_a_list(meta, checkpoint, tmp_path):
    content = torch.load(checkpoint)
    content['meta']['dataset_meta'] = meta or [1]
    torch.save(content, tmp_path / 'x.pth')
    assert 'without a list of classes' in refusal(
        load, tmp_path / 'x.pth', device='cpu')


def test_predict_rejects_empty_path(model):
    assert 'path of the images is empty' in refusal(predict, model, '')


# --- Errors ------------------------------------------------------------------


def test_load_rejects_config_without_weights():
    for call in (dict(checkpoint=STDC), dict(config=STDC)):
        line = refusal(load, **call)
        assert 'stdc1_camvid.py has no weights' in line
        assert 'weights=False' in line
    assert 'no checkpoint is given' in refusal(load)
    assert 'weights=False is for' in refusal(
        load, 'a.pth', config=STDC, weights=False)


def test_load_names_file_or_device_at_fault(checkpoint, tmp_path, capsys):
    assert 'no.pth does not exist' in refusal(load, 'no.pth')
    data = Path(checkpoint).read_bytes()
    (tmp_path / 'cut.pth').write_bytes(data[:len(data) // 2])
    assert 'cut.pth cannot be read' in refusal(load, tmp_path / 'cut.pth')
    line = refusal(load, checkpoint, config=CONFIGS / 'stdc2_camvid.py')
    assert f'{checkpoint} does not fit the config' in line
    assert 'no.py does not exist' in refusal(load, checkpoint, 'no.py')
    line = refusal(load, checkpoint, config=CONFIGS / 'stdc1_imagenet.py')
    assert 'no segmentation network' in line
    assert 'device tpu:9' in refusal(load, checkpoint, device='tpu:9')
    assert 'got int' in refusal(load, checkpoint, config=3)
    printed = capsys.readouterr()
    assert 'size mismatch' not in printed.out + printed.err


def test_load_accepts_other_auxiliary_head(checkpoint, tmp_path):
    content = torch.load(checkpoint)
    key = 'auxiliary_head.0.conv_seg.weight'
    content['state_dict'][key] = content['state_dict'][key][:2]
    torch.save(content, tmp_path / 'x.pth')
    load(tmp_path / 'x.pth', device='cpu')


@pytest.mark.parametrize('value, message', [
    (np.zeros((4, 4), np.uint8), r'image has shape \(4, 4\)'),
    (np.zeros((3, 4, 4), np.uint8), r'image has shape \(3, 4, 4\)'),
    (np.zeros((0, 4, 3), np.uint8), r'image has shape \(0, 4, 3\)'),
    (np.zeros((4, 4, 3), np.float32), 'image is of float32'),
    (torch.zeros(4, 4, 3), 'image is a Tensor'),
    ('no.jpg', 'image no.jpg does not exist'),
    ([np.zeros((4, 4, 3), np.uint8), 5], r'images\[1\] is a int'),
    (['/'], r'images\[0\] / is a folder'),
])
def test_predict_rejects_other_inputs(model, value, message):
    line = refusal(predict, model, value)
    assert re.search(message, line)
    assert 'array (H, W, 3) of uint8' in line or 'give folders alone' in line


def test_predict_names_file_at_fault(model, folder):
    data = (folder / 'a.png').read_bytes()
    (folder / 'cut.png').write_bytes(data[:300])
    assert 'cut.png cannot be read' in refusal(predict, model, folder / 'cut.png')
    (folder / 'empty').mkdir()
    assert 'empty holds no image' in refusal(predict, model, folder / 'empty')
    assert 'no cfg' in refusal(predict, torch.nn.Identity(), folder)


def test_predict_rejects_pipeline_without_image_loader(model, image):
    other = torch.nn.Identity()
    other.cfg = Config(dict(test_dataloader=dict(dataset=dict(
        type='CamVidDataset', pipeline=[dict(type='PackSegInputs')]))))
    assert 'begins with PackSegInputs' in refusal(predict, other, image)


def test_predict_leaves_hidden_files_out(model, folder):
    names = ['a.png', 'b.png', 'sub/c.png']
    for name in ('._a.png', '.ipynb_checkpoints/a-checkpoint.png'):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b'no image')
    assert [path for path, _ in predict(model, folder)] == [
        folder / name for name in names]


def test_predict_reads_folder_that_is_hidden_itself(model, folder):
    hidden = folder / '.cache'
    hidden.mkdir()
    (folder / 'a.png').rename(hidden / 'a.png')
    assert [path.name for path, _ in predict(model, hidden)] == ['a.png']
