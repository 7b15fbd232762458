"""Test converting checkpoints: keys, weights left out, errors."""
import pickle
import subprocess
import sys

import pytest
import torch
from golden import (
    CONFIGS,
    encnet_config,
    encnet_state,
    stdc_config,
    stdc_state,
)
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_checkpoint
from mmseg.registry import MODELS

from mmseg_encstdc.convert import (
    convert_file,
    mmsegmentation,
    pytorch_encoding,
    stdc_seg,
)
from mmseg_encstdc.engine import check_fits, load_config
from mmseg_encstdc.errors import InputError

STDC1 = str(CONFIGS / 'stdc1_seg50_cityscapes.py')
ENCNET = str(CONFIGS / 'encnet_r50s_ade.py')


@pytest.fixture(scope='module')
def stdc():
    return stdc_state('STDCNet813')


@pytest.fixture(scope='module')
def encnet():
    return encnet_state('resnet50s')


@pytest.fixture
def saved(tmp_path):
    """Return a function that writes a checkpoint and returns its path."""
    def write(content, name='authors.pth'):
        path = tmp_path / name
        torch.save(content, path)
        return str(path)

    return write


def imagenet(state, prefix):
    """Return the ImageNet checkpoint inside a segmentation checkpoint."""
    return {key[len(prefix):]: value for key, value in state.items()
            if key.startswith(prefix)}


# --- Whole networks ----------------------------------------------------------


@pytest.mark.parametrize('wrap', [
    lambda state: state,
    lambda state: dict(state_dict=state, epoch=3, best_pred=0.5),
    lambda state: dict(state_dict={f'module.{k}': v for k, v in state.items()}),
    lambda state: {f'module.{k}': v for k, v in state.items()},
])
def test_convert_finds_wrapped_state_dict(saved, stdc, wrap):
    cfg = stdc_config('STDCNet813')
    plain = stdc_seg.convert(saved(stdc), cfg)
    found = stdc_seg.convert(saved(wrap(stdc), 'wrapped.pth'), cfg)
    assert found.state.keys() == plain.state.keys()
    assert all(torch.equal(found.state[k], plain.state[k]) for k in plain.state)


@pytest.mark.parametrize('converter, config, state', [
    (stdc_seg, STDC1, 'stdc'), (pytorch_encoding, ENCNET, 'encnet')])
def test_convert_file_writes_loadable_checkpoint(
        saved, tmp_path, request, converter, config, state):
    source = saved(request.getfixturevalue(state))
    target = str(tmp_path / 'deeper' / 'ours.pth')
    said = convert_file(converter, source, target, config)
    model = MODELS.build(load_config(config).model)
    checkpoint = load_checkpoint(model, target, strict=True)
    check_fits(model, target)
    meta = checkpoint['meta']
    assert meta['converted_from'] == converter.SOURCE
    classes = meta['dataset_meta']['classes']
    assert len(classes) == len(meta['dataset_meta']['palette']) in (19, 150)
    assert f'{len(checkpoint["state_dict"])} entries for the model' in said
    assert not list(tmp_path.glob('**/*.partial'))


def test_convert_file_lists_heads_left_out(saved, tmp_path, stdc):
    said = convert_file(stdc_seg, saved(stdc), str(tmp_path / 'ours.pth'), STDC1)
    told = {line.split(': ')[1].split(' ')[0] for line in said.splitlines()
            if line.startswith('left out')}
    assert told == {
        'conv_out_sp16', 'conv_out_sp4', 'conv_out_sp2', 'cp.backbone.conv_last',
        'cp.backbone.fc', 'cp.backbone.bn', 'cp.backbone.linear'}
    left_out = torch.load(tmp_path / 'ours.pth')['meta']['left_out']
    assert 'conv_out_sp4.conv_out.weight' in left_out


def test_pytorch_encoding_leaves_auxiliary_head_out(saved, encnet):
    cfg = encnet_config('resnet50s')
    cfg.model.auxiliary_head = None
    found = pytorch_encoding.convert(saved(encnet), cfg)
    assert found.left_out and all(k.startswith('auxlayer') for k in found.left_out)


def test_stdc_seg_converts_in_place_norm_weights(saved, stdc):
    state = stdc_seg.convert(saved(stdc), stdc_config('STDCNet813')).state
    name = 'cp.arm32.conv.bn.weight'
    assert (stdc[name] < 0).any()
    torch.testing.assert_close(
        state['backbone.arms.0.conv_layer.bn.weight'], stdc[name].abs() + 1e-5)
    plain = 'cp.backbone.features.0.bn.weight'
    assert torch.equal(state['backbone.backbone.stages.0.bn.weight'], stdc[plain])


# --- ImageNet ----------------------------------------------------------------


@pytest.mark.parametrize('depth, config', [
    ('resnet50s', 'encnet_r50s_ade.py'), ('resnet101s', 'encnet_r101s_ade.py')])
def test_convert_file_makes_resnet_backbone_for_init_cfg(
        saved, tmp_path, depth, config):
    state = imagenet(encnet_state(depth), 'pretrained.')
    state['fc.weight'] = torch.zeros(1000, 2048)
    target = str(tmp_path / 'backbone.pth')
    said = convert_file(
        pytorch_encoding, saved(state), target, str(CONFIGS / config))
    assert 'for the backbone' in said and 'fc (1 entries)' in said
    cfg = Config.fromfile(CONFIGS / config).model.backbone
    cfg.init_cfg.checkpoint = target
    backbone = MODELS.build(cfg)
    backbone.init_weights()
    assert torch.equal(backbone.stem[7].weight, state['bn1.weight'])
    assert torch.equal(backbone.layer4[1].conv3.weight,
                       state['layer4.1.conv3.weight'])


def test_convert_file_makes_stdc_backbone_for_init_cfg(saved, tmp_path, stdc):
    state = imagenet(stdc, 'cp.backbone.')
    target = str(tmp_path / 'backbone.pth')
    said = convert_file(stdc_seg, saved(dict(state_dict=state)), target, STDC1)
    assert 'for the backbone' in said and 'left out' in said
    cfg = Config.fromfile(STDC1).model.backbone
    cfg.backbone_cfg.init_cfg = dict(type='Pretrained', checkpoint=target)
    model = MODELS.build(cfg)
    model.init_weights()
    assert torch.equal(model.backbone.stages[4][1].layers[3].conv.weight,
                       state['features.7.conv_list.3.conv.weight'])


@pytest.mark.parametrize('backbone, config', [
    ('STDCNet813', 'stdc1_imagenet.py'), ('STDCNet1446', 'stdc2_imagenet.py')])
def test_convert_file_makes_stdc_classifier(
        saved, tmp_path, backbone, config):
    state = imagenet(stdc_state(backbone), 'cp.backbone.')
    target = str(tmp_path / 'classifier.pth')
    said = convert_file(stdc_seg, saved(state), target, str(CONFIGS / config))
    assert 'for the model' in said
    assert [line for line in said.splitlines() if line.startswith('left out')] == [
        "left out, the config has no use for it: bn (4 entries)"]
    model = MODELS.build(Config.fromfile(CONFIGS / config).model).eval()
    load_checkpoint(model, target, strict=True)
    with torch.no_grad():
        image = torch.randn(2, 3, 64, 64)
        pooled = model.backbone(image)[-1].square().mean((2, 3))
        expected = (pooled @ state['fc.weight'].t()).relu() @ (
            state['linear.weight'].t())
        torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-4)


# --- Errors ------------------------------------------------------------------


@pytest.mark.parametrize('converter, config, state', [
    (stdc_seg, STDC1, 'stdc'), (pytorch_encoding, ENCNET, 'encnet')])
def test_convert_file_rejects_converted_checkpoint(
        saved, tmp_path, request, converter, config, state):
    once, twice = str(tmp_path / 'once.pth'), str(tmp_path / 'twice.pth')
    convert_file(converter, saved(request.getfixturevalue(state)), once, config)
    with pytest.raises(InputError, match=f'once.pth was converted from '
                       f'{converter.SOURCE} already'):
        convert_file(converter, once, twice, config)


def test_convert_rejects_truncated_file(saved, stdc):
    path = saved(stdc)
    content = open(path, 'rb').read()
    open(path, 'wb').write(content[:len(content) // 2])
    with pytest.raises(InputError, match='authors.pth cannot be read') as caught:
        stdc_seg.convert(path, stdc_config('STDCNet813'))
    assert '\n' not in str(caught.value)


class Trap:
    """Create a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


@pytest.mark.parametrize('converter', [stdc_seg, pytorch_encoding, mmsegmentation])
def test_convert_executes_no_pickled_code(saved, tmp_path, converter):
    path = saved(dict(state_dict={}, meta={}, trap=Trap(str(tmp_path / 'sprung'))))
    with pytest.raises(InputError, match='cannot be read'):
        converter.convert(path, stdc_config('STDCNet813'))
    (tmp_path / 'plain.pkl').write_bytes(pickle.dumps(Trap(str(tmp_path / 'sprung'))))
    with pytest.raises(InputError, match='cannot be read'):
        converter.convert(str(tmp_path / 'plain.pkl'), stdc_config('STDCNet813'))
    assert not (tmp_path / 'sprung').exists()


@pytest.mark.parametrize('content, message', [
    ([1, 2], 'holds a list'),
    ({}, 'holds no state dict'),
    (dict(weights=1), 'holds no state dict; its entries are weights'),
    (dict(other=torch.zeros(2)), 'is none of'),
    (dict(state_dict={'a': torch.zeros(1)}, meta=dict(epoch=1)),
     'is a checkpoint of MMEngine'),
])
@pytest.mark.parametrize('converter', [stdc_seg, pytorch_encoding])
def test_convert_rejects_other_content(saved, converter, content, message):
    with pytest.raises(InputError, match=message):
        converter.convert(saved(content), stdc_config('STDCNet813'))


def test_convert_names_missing_file():
    with pytest.raises(InputError, match='checkpoint none.pth does not exist'):
        stdc_seg.convert('none.pth', stdc_config('STDCNet813'))


def test_convert_lists_keys_at_fault(
        saved, stdc, encnet):
    cfg = stdc_config('STDCNet813')
    lacking = {k: v for k, v in stdc.items() if not k.startswith('ffm.conv1')}
    with pytest.raises(InputError, match='missing: backbone.ffm.attention.1.conv'):
        stdc_seg.convert(saved(lacking), cfg)
    with pytest.raises(InputError, match='not known: ffm.conv9.weight'):
        stdc_seg.convert(saved({**stdc, 'ffm.conv9.weight': torch.zeros(1)}), cfg)
    with pytest.raises(InputError, match=r'conv_seg.weight \(19, 256, 1, 1\) for '
                       r'\(11, 256, 1, 1\)'):
        cfg.model.decode_head.num_classes = 11
        stdc_seg.convert(saved(stdc), cfg)
    with pytest.raises(InputError, match='unexpected: decode_head.fusion.bn.bias'):
        pytorch_encoding.convert(saved(encnet_state('resnet50s_lateral')),
                                 encnet_config('resnet50s'))


def test_convert_counts_keys_of_other_depth(saved, stdc):
    with pytest.raises(InputError, match='does not fit the model.* and .* more'):
        stdc_seg.convert(saved(stdc), stdc_config('STDCNet1446'))


def test_stdc_seg_rejects_differing_backbone_copies(saved, stdc):
    name = 'cp.backbone.x8.0.2.conv_list.0.conv.weight'
    with pytest.raises(InputError, match=f'two versions.*{name}'):
        stdc_seg.convert(
            saved({**stdc, name: stdc[name] + 1}), stdc_config('STDCNet813'))


def test_convert_file_rejects_unwritable_target(
        saved, stdc, tmp_path):
    source = saved(stdc)
    with pytest.raises(InputError, match='DST .* is SRC'):
        convert_file(stdc_seg, source, source, STDC1)
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='cannot be written'):
        convert_file(stdc_seg, source, str(tmp_path / 'file' / 'x.pth'), STDC1)


# --- MMSegmentation's own ----------------------------------------------------


def stock_checkpoint(cfg):
    model = MODELS.build(cfg)
    return dict(state_dict=model.state_dict(), meta=dict(mmseg_version='1.2.2'))


def stock_stdc():
    """Return MMSegmentation's STDC1 and ours: model configs with biases."""
    from mmseg.models.decode_heads import STDCHead
    cfg = Config.fromfile(STDC1).model
    for head in (cfg.decode_head, *cfg.auxiliary_head[:2]):
        head.bias = True
    two = dict(type=STDCHead, in_channels=256, channels=64, num_convs=1,
               num_classes=2, in_index=0, concat_input=False,
               norm_cfg=dict(type='BN'))
    ours = [*cfg.auxiliary_head[:2], {**cfg.auxiliary_head[2], 'bias': True}]
    theirs = [*cfg.auxiliary_head[:2], two]
    return {**cfg, 'auxiliary_head': theirs}, {**cfg, 'auxiliary_head': ours}


def test_mmsegmentation_encnet_needs_no_conversion(saved):
    cfg = Config.fromfile(CONFIGS / 'encnet_r50_ade.py')
    assert mmsegmentation.convert(saved(stock_checkpoint(cfg.model)), cfg) is None


def test_mmsegmentation_keeps_second_detail_channel(saved):
    theirs, ours = stock_stdc()
    checkpoint = stock_checkpoint(theirs)
    cfg = Config.fromfile(STDC1)
    cfg.model = ours
    found = mmsegmentation.convert(saved(checkpoint), cfg)
    left_out = {key.rsplit('.', 1)[1] for key in found.left_out}
    assert left_out == set(mmsegmentation.CONSTANTS)
    model, two = MODELS.build(ours).eval(), MODELS.build(theirs).eval()
    model.load_state_dict(found.state, strict=True)
    two.load_state_dict(checkpoint['state_dict'])
    with torch.no_grad():
        features = model.backbone(torch.randn(1, 3, 64, 64))
        detail = model.auxiliary_head[2](features)
        both = two.auxiliary_head[2](features)
    torch.testing.assert_close(detail, both[:, 1:])


def test_mmsegmentation_names_heads_that_need_bias(saved):
    theirs, _ = stock_stdc()
    with pytest.raises(InputError, match='auxiliary_head.0, .*set bias=True'):
        mmsegmentation.convert(saved(stock_checkpoint(theirs)), Config.fromfile(STDC1))


# --- The command line --------------------------------------------------------


@pytest.mark.parametrize('name', ['stdc_seg', 'pytorch_encoding', 'mmsegmentation'])
def test_convert_tools_end_with_one_line(root, tmp_path, name):
    (tmp_path / 'foreign.pth').write_bytes(b'no checkpoint')
    done = subprocess.run(
        [sys.executable, f'tools/convert/{name}.py', str(tmp_path / 'foreign.pth'),
         str(tmp_path / 'out.pth'), '--config', STDC1],
        cwd=root, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().startswith('error: checkpoint')
    assert 'foreign.pth cannot be read' in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / 'out.pth').exists()


def test_convert_file_takes_config_in_any_folder(saved, tmp_path, stdc):
    config = tmp_path / 'mine.py'
    config.write_text(f"_base_ = '{STDC1}'\n")
    convert_file(stdc_seg, saved(stdc), str(tmp_path / 'ours.pth'), str(config))
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'ours.pth'))
