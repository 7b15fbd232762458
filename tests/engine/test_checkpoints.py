"""Test reading checkpoints, and the messages for other files."""
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import nn

from mmseg_encstdc.engine import check_fits, read_checkpoint
from mmseg_encstdc.engine.checkpoints import fitting
from mmseg_encstdc.errors import InputError

WEIGHTS = {'w': torch.ones(2)}


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves content and returns its path."""
    def write(content):
        torch.save(content, tmp_path / 'x.pth')
        return str(tmp_path / 'x.pth')
    return write


def error_of(*args, **kwargs):
    """Return the one line of the InputError that reading raises."""
    with pytest.raises(InputError) as caught:
        read_checkpoint(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_read_checkpoint_returns_all_entries(saved):
    content = read_checkpoint(saved(dict(
        state_dict=WEIGHTS, meta=dict(iter=3), optimizer={})))
    assert content.keys() == {'state_dict', 'meta', 'optimizer'}
    assert torch.equal(content['state_dict']['w'], WEIGHTS['w'])


@pytest.mark.parametrize('content, meta', [
    (WEIGHTS, None), (dict(state_dict=WEIGHTS, epoch=3), None),
    (dict(state_dict=WEIGHTS, meta=dict(iter=3)), dict(iter=3))])
def test_read_checkpoint_bare_finds_state_dict(saved, content, meta):
    found = read_checkpoint(saved(content), bare=True)
    assert found.keys() == {'state_dict', 'meta'} and found['meta'] == meta
    assert torch.equal(found['state_dict']['w'], WEIGHTS['w'])


@pytest.mark.parametrize('content', [
    WEIGHTS, [1], dict(state_dict=WEIGHTS), dict(state_dict=5, meta={})])
def test_read_checkpoint_requires_state_dict_and_meta(saved, content):
    assert ('x.pth is no checkpoint of MMEngine: it needs the dictionaries '
            'state_dict and meta') in error_of(saved(content))


@pytest.mark.parametrize('content, message', [
    (5, 'holds a int; it must be a state dict'),
    ({}, 'holds no state dict'),
    ({'model': WEIGHTS}, 'holds no state dict; its entries are model'),
    ({3: torch.ones(2)}, 'holds no state dict; its entries are 3'),
])
def test_read_checkpoint_bare_names_other_content(saved, content, message):
    assert message in error_of(saved(content), bare=True)


def test_read_checkpoint_message_has_key_and_remedy(tmp_path):
    for path, state in ((tmp_path / 'none.pth', 'does not exist'),
                        (tmp_path, 'is a folder')):
        line = error_of(str(path), 'model.init_cfg.checkpoint', 'set it to None')
        assert line == f'model.init_cfg.checkpoint {path} {state}; set it to None'


@pytest.mark.parametrize('bare', [False, True])
def test_read_checkpoint_does_not_advise_to_trust_truncated_file(
        saved, bare):
    path = saved(dict(state_dict=WEIGHTS, meta={}))
    data = open(path, 'rb').read()
    open(path, 'wb').write(data[:len(data) // 2])
    line = error_of(path, bare=bare)
    assert 'x.pth cannot be read: it is truncated, or no file of torch' in line
    assert 'weights_only' not in line


def test_check_fits_rejects_deeper_backbone(root, tmp_path):
    model, deeper = (MODELS.build(Config.fromfile(root / f'configs/{name}.py').model)
                     for name in ('stdc1_camvid', 'stdc2_camvid'))
    path = str(tmp_path / 'stdc2.pth')
    torch.save(dict(state_dict=deeper.state_dict(), meta={}), path)
    with pytest.raises(InputError, match='left over.*backbone.backbone.stages'):
        check_fits(model, path)


# --- A start from another training -------------------------------------------


def network(backbone=3, classes=4):
    """Return a model with two modules of named weights."""
    return nn.ModuleDict(dict(
        backbone=nn.ModuleDict(dict(
            conv=nn.Conv2d(2, 3, backbone), norm=nn.BatchNorm2d(3))),
        decode_head=nn.ModuleDict(dict(
            conv=nn.Conv2d(3, 3, 1), conv_seg=nn.Conv2d(3, classes, 1)))))


def test_fitting_selects_all_weights_of_same_network():
    other = network().state_dict()
    fits, line = fitting(network(), other, 'a.pth')
    assert line == '10 of 10 weights of the model are loaded from a.pth'
    assert all(torch.equal(fits[key], other[key]) for key in other)


def test_fitting_names_last_convolution_of_other_classes():
    fits, line = fitting(network(), network(classes=7).state_dict(), 'a.pth')
    assert line == ('8 of 10 weights of the model are loaded from a.pth; not in it: '
                    'decode_head.conv_seg; not of the model: decode_head.conv_seg')
    assert 'decode_head.conv.weight' in fits
    assert not any('conv_seg' in key for key in fits)


def test_fitting_names_largest_parts_left_out():
    state = {key: value for key, value in network().state_dict().items()
             if key.startswith('backbone')}
    state['neck.weight'] = torch.zeros(2)
    state['backbone.layer9.weight'] = torch.zeros(2)
    _, line = fitting(network(), state, 'a.pth')
    assert line == ('6 of 10 weights of the model are loaded from a.pth; not in it: '
                    'decode_head; not of the model: neck, backbone.layer9')


@pytest.mark.parametrize('state', [
    {f'other.{key}': value for key, value in network().state_dict().items()},
    {key: value[..., None] for key, value in network().state_dict().items()
     if 'num_batches' not in key}], ids=['names', 'shapes'])
def test_fitting_rejects_file_without_any_weight(state):
    with pytest.raises(InputError) as caught:
        fitting(network(), state, 'a.pth')
    message = str(caught.value)
    assert 'load_from a.pth has none of the 10 weights of the model' in message
    assert "init_cfg=dict(_delete_=True, type='Pretrained'" in message
    assert '\n' not in message
