"""Two lines from a checkpoint to label maps."""
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
    """A checkpoint as training writes it, of random weights."""
    cfg = cfg or Config.fromfile(config)
    model = MODELS.build(cfg.model)
    for value in model.state_dict().values():  # norms that do something
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
    """The one line of the error."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


# --- What comes out ----------------------------------------------------------


def test_two_lines_give_what_mmsegmentation_gives(checkpoint, folder):
    stock = init_model(STDC, checkpoint, device='cpu')
    expected = inference_model(stock, str(folder / 'a.png'))
    labels, scores = predict(
        load(checkpoint, device='cpu'), folder / 'a.png', with_scores=True)
    assert labels.shape == (66, 80) and labels.dtype == np.uint8
    assert scores.shape == (11, 66, 80) and scores.dtype == np.float32
    assert np.array_equal(labels, expected.pred_sem_seg.data[0].numpy())
    assert np.array_equal(scores, expected.seg_logits.data.numpy())
    assert len(np.unique(labels)) > 1


def test_nothing_is_said_that_asks_nothing_of_the_user(checkpoint, folder):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        predict(load(checkpoint, device='cpu'), folder / 'a.png')


def test_the_inferencer_of_mmsegmentation_gives_the_same(
        checkpoint, model, image):
    inferencer = MMSegInferencer(model=STDC, weights=checkpoint, device='cpu')
    assert np.array_equal(
        inferencer(image)['predictions'], predict(model, image))


def test_images_come_back_at_their_size_when_the_pipeline_resizes(tmp_path):
    cfg = Config.fromfile(RESIZING)
    cfg.model.backbone.depth, cfg.model.backbone.stem_channels = 18, 16
    cfg.model.backbone.init_cfg = None
    cfg.model.decode_head.update(in_channels=[128, 256, 512], channels=16)
    cfg.model.auxiliary_head.update(in_channels=256, channels=16)
    cfg.test_dataloader.dataset.pipeline[1].scale = (64, 64)
    path = save(tmp_path / 'small.pth', cfg=cfg)
    image = np.zeros((50, 90, 3), np.uint8)
    assert predict(load(path, device='cpu'), image).shape == (50, 90)


def test_arrays_and_files_in_either_order_of_colours_agree(model, folder):
    image = read_image(folder / 'a.png')
    one = predict(model, str(folder / 'a.png'))
    assert np.array_equal(one, predict(model, image))
    assert np.array_equal(one, predict(model, image[..., ::-1], rgb=True))
    assert not np.array_equal(one, predict(model, image[..., ::-1]))


def test_a_list_gives_a_list_and_a_folder_an_iterator(model, folder):
    paths = [folder / 'a.png', folder / 'b.png', folder / 'sub' / 'c.png']
    labels = predict(model, [paths[0], str(paths[1]), read_image(paths[2])])
    found = predict(model, folder)
    assert iter(found) is found  # one image at a time
    for expected, path, (name, label) in zip(labels, paths, found):
        assert name == path and np.array_equal(label, expected)
    assert predict(model, []) == []


@pytest.mark.parametrize('mode', ['chip', 'slide'])
def test_the_modes_of_the_config_are_used(checkpoint, image, mode):
    cfg = Config.fromfile(STDC)
    cfg.model.test_cfg = cfg.test_modes[mode].test_cfg
    cfg.model.test_cfg.crop_size = 64 if mode == 'chip' else (64, 64)
    if mode == 'slide':
        cfg.model.test_cfg.stride = (48, 48)
    whole = predict(load(checkpoint, device='cpu'), image, with_scores=True)[1]
    scores = predict(load(checkpoint, cfg, 'cpu'), image, with_scores=True)[1]
    assert scores.shape == whole.shape
    assert not np.allclose(scores, whole)


def test_a_network_without_weights_is_there_for_the_asking():
    model = load(config=STDC, weights=False, device='cpu')
    assert model.dataset_meta['classes'][0] == 'sky' and not model.training


# --- The config in a checkpoint ----------------------------------------------


def test_every_config_is_read_back_as_it_was(tmp_path):
    for path in sorted(CONFIGS.glob('*.py')):
        cfg = Config.fromfile(path)
        if 'decode_head' not in cfg.model:
            continue
        read = embedded_config(dict(meta=dict(cfg=cfg.pretty_text)), 'x.pth')
        assert read.to_dict() == cfg.to_dict()


MINIMAL = 'model = dict(type="EncoderDecoder")\n'
SET = 'test_dataloader = dict(dataset=dict(type="CamVidDataset"))\n'


@pytest.mark.parametrize('text, message', [
    (None, 'holds no config'),
    (SET, 'has no model'),
    (MINIMAL, 'has no test_dataloader'),
    ('import os\n' + MINIMAL + SET, 'more than plain values .line 1'),
    (MINIMAL + SET + 'x = open("made", "w")', 'more than plain values .line 3'),
    ('model = [', 'more than plain values'),
    ('model = dict(type="os.mkdir", path="made")\n' + SET,
     'the type os.mkdir, which is not registered'),
    ('model = dict(type="EncoderDecoder", x=[dict(type="antigravity")])\n' + SET,
     'the type antigravity'),
    ('custom_imports = dict(imports=["my_own_sets"])\n' + MINIMAL + SET,
     'with the module my_own_sets; import it before'),
    ('custom_imports = 5\n' + MINIMAL + SET, 'name no modules'),
    ('custom_imports = dict(imports=5)\n' + MINIMAL + SET, 'name no modules'),
    ('default_scope = "antigravity"\n' + MINIMAL + SET,
     "scope 'antigravity', which is none of mmseg, mmengine"),
    ('default_scope = 5\n' + MINIMAL + SET, 'scope 5'),
    ('model = dict(type="EncoderDecoder", x=dict(_scope_="antigravity"))\n' + SET,
     "scope 'antigravity'"),
    ('model = dict(type="EncoderDecoder", x=dict(class_weight="http://a/b"))\n'
     + SET, 'names the file http://a/b as class_weight'),
    ('model = dict(type="EncoderDecoder", x=dict(file="w.PKL"))\n' + SET,
     'names the file w.PKL as file'),
    (MINIMAL + SET + 'a = {[]: 1}', 'more than plain values'),
    (MINIMAL + SET + 'a = {[1]}', 'more than plain values'),
    (MINIMAL + SET + 'a = dict(5)', 'more than plain values'),
    (MINIMAL + SET + 'a = dict(**5)', 'more than plain values'),
    (MINIMAL + SET + 'filename = 5', 'cannot be read'),
])
def test_a_config_that_is_more_than_values_is_refused(
        text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, meta=dict(cfg=text)), 'x.pth')
    line = refusal(load, 'x.pth', device='cpu')
    assert re.search(message, line) and 'x.pth' in line
    assert 'as config=' in line
    assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize('value', [
    5, 'text', torch.ones(2).to_sparse(), torch.ones(2, device='meta')])
def test_weights_that_are_no_tensors_are_named(value, tmp_path):
    torch.save(dict(state_dict={'w': value}, meta={}), tmp_path / 'x.pth')
    line = refusal(load, tmp_path / 'x.pth', STDC, device='cpu')
    assert "has 'w' in its state_dict, which is no plain tensor" in line


@pytest.mark.parametrize('meta', [[], 'text', 5, dict(classes=5)])
def test_classes_that_are_no_list_are_named(meta, checkpoint, tmp_path):
    content = torch.load(checkpoint)
    content['meta']['dataset_meta'] = meta or [1]
    torch.save(content, tmp_path / 'x.pth')
    assert 'without a list of classes' in refusal(
        load, tmp_path / 'x.pth', device='cpu')


def test_an_empty_path_is_not_the_current_folder(model):
    assert 'path of the images is empty' in refusal(predict, model, '')


# --- What is refused ---------------------------------------------------------


def test_a_config_alone_has_no_weights():
    for call in (dict(checkpoint=STDC), dict(config=STDC)):
        line = refusal(load, **call)
        assert 'stdc1_camvid.py has no weights' in line
        assert 'weights=False' in line
    assert 'no checkpoint is given' in refusal(load)
    assert 'weights=False is for' in refusal(
        load, 'a.pth', config=STDC, weights=False)


def test_a_checkpoint_at_fault_is_named(checkpoint, tmp_path, capsys):
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


def test_an_auxiliary_head_may_differ(checkpoint, tmp_path):
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
def test_what_is_no_image_is_refused(model, value, message):
    line = refusal(predict, model, value)
    assert re.search(message, line)
    assert 'array (H, W, 3) of uint8' in line or 'give folders alone' in line


def test_files_that_cannot_be_predicted_are_named(model, folder):
    data = (folder / 'a.png').read_bytes()
    (folder / 'cut.png').write_bytes(data[:300])
    assert 'cut.png cannot be read' in refusal(predict, model, folder / 'cut.png')
    (folder / 'empty').mkdir()
    assert 'empty holds no image' in refusal(predict, model, folder / 'empty')
    assert 'no cfg' in refusal(predict, torch.nn.Identity(), folder)


def test_a_pipeline_that_does_not_begin_with_a_file_is_named(model, image):
    other = torch.nn.Identity()
    other.cfg = Config(dict(test_dataloader=dict(dataset=dict(
        type='CamVidDataset', pipeline=[dict(type='PackSegInputs')]))))
    assert 'begins with PackSegInputs' in refusal(predict, other, image)
