"""Heads of one class or one channel are right, or refused with a remedy that works."""
import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_encstdc.engine import check_config
from mmseg_encstdc.errors import InputError

LOADERS = ['train_dataloader']
SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True)
TWO = ['background', 'crack']
KINDS = ('encnet_r18_camvid', 'stdc1_camvid')
SOFTMAX = [
    dict(type='CrossEntropyLoss'), dict(type='OhemCrossEntropy'),
    dict(type='TverskyLoss'), dict(type='LovaszLoss', reduction='none'),
    dict(type='HuasdorffDisstanceLoss'), dict(type='SemanticEncodingLoss'),
    [SIGMOID, dict(type='CrossEntropyLoss')]]


@pytest.fixture
def config(root, tmp_path):
    """Return a function from network and classes to its config on empty folders."""
    for folder in ('images/train', 'labels/train'):
        (tmp_path / folder).mkdir(parents=True)

    def build(name='encnet_r18_camvid', classes=TWO, auxiliary=None, **head):
        cfg = Config.fromfile(root / f'configs/{name}.py')
        cfg.train_dataloader.dataset.update(
            type='BaseSegDataset', data_root=str(tmp_path),
            metainfo=dict(classes=classes))
        heads = cfg.model.auxiliary_head
        heads = [heads] if isinstance(heads, dict) else heads[:2]
        for part, values in ((cfg.model.decode_head, head),
                             *((other, auxiliary or {}) for other in heads)):
            part.num_classes = len(classes)
            for key, value in values.items():
                part[key] = value  # update() would merge losses
        return cfg
    return build


def error_of(cfg):
    with pytest.raises(InputError) as caught:
        check_config(cfg, LOADERS, training=True)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def step(cfg):
    """Return the losses and the accuracies of a random batch, as two dictionaries."""
    assert check_config(cfg, LOADERS, training=True) is None
    model = MODELS.build(cfg.model)
    sample = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 2, (1, 64, 64))))
              for _ in range(2)]
    found = model.loss(torch.randn(2, 3, 64, 64), sample)
    sum(value for key, value in found.items() if 'loss' in key).backward()
    return ({key: float(value) for key, value in found.items() if 'loss' in key},
            {key: float(value) for key, value in found.items() if 'acc' in key})


def bn(cfg):
    """Replace SyncBN, which a CPU does not have."""
    for part in list(cfg.values()) if isinstance(cfg, dict) else (
            cfg if isinstance(cfg, list) else []):
        bn(part)
    if isinstance(cfg, dict) and cfg.get('type') == 'SyncBN':
        cfg['type'] = 'BN'
    return cfg


# --- One class ---------------------------------------------------------------


@pytest.mark.parametrize('name', KINDS)
def test_one_class_of_softmax_or_ohem_is_refused(config, name):
    message = error_of(config(name, classes=['crack']))
    kind = 'CrossEntropyLoss' if 'encnet' in name else 'OhemCELoss'
    assert message.startswith(f'model.decode_head.num_classes is 1, but {kind}')
    assert 'set num_classes=2' in message and 'metainfo.classes to two names' in message


@pytest.mark.parametrize('name', KINDS)
def test_remedy_of_one_class_trains(config, name):
    losses, accuracies = step(bn(config(name)))
    assert all(value > 1e-3 for value in losses.values()), losses
    assert all(value < 99 for value in accuracies.values())


def test_one_class_of_data_set_is_refused_before_its_head(config):
    cfg = config(classes=['crack'], loss_decode=SIGMOID, use_se_loss=False,
                 auxiliary=dict(loss_decode=SIGMOID))
    message = error_of(cfg)
    assert 'BaseSegDataset (train_dataloader) has the class crack alone' in message
    assert "('background', 'crack'), num_classes=2 in every head" in message
    cfg = config(classes=['crack'])
    cfg.model.decode_head.num_classes = cfg.model.auxiliary_head.num_classes = 2
    assert "('background', 'crack')" in error_of(cfg)  # not 'set it to 1'


def test_num_classes_1_with_sigmoid_takes_two_classes_as_in_mmsegmentation(config):
    binary = dict(loss_decode=SIGMOID)
    cfg = config(auxiliary=binary, **binary)
    cfg.model.auxiliary_head.num_classes = 1
    cfg.model.decode_head.update(num_classes=1, use_se_loss=False)
    losses, _ = step(bn(cfg))
    assert 0.3 < losses['decode.loss_ce'] < 3
    cfg.model.decode_head.use_se_loss = True
    assert 'presence loss would see the background alone' in error_of(cfg)


# --- One channel -------------------------------------------------------------


@pytest.mark.parametrize('loss', SOFTMAX, ids=str)
@pytest.mark.parametrize('part', ['decode_head', 'auxiliary_head'])
def test_one_channel_of_softmax_is_refused(config, part, loss):
    cfg = config()
    cfg.model[part].update(out_channels=1, threshold=0.5)
    cfg.model[part].loss_decode = loss
    message = error_of(cfg)
    assert message.startswith(f'model.{part}.out_channels is 1, but the softmax')
    assert 'use_sigmoid=True' in message and 'OhemCELoss' in message


def test_one_channel_of_default_loss_is_refused(config):
    cfg = config(out_channels=1)
    del cfg.model.decode_head['loss_decode']
    assert 'which CrossEntropyLoss takes' in error_of(cfg)


@pytest.mark.parametrize('loss', [
    SIGMOID, dict(type='OhemCELoss'), dict(type='BinaryDiceLoss'),
    dict(type='LovaszLoss', loss_type='binary', reduction='none')],
    ids=lambda loss: loss['type'])
@pytest.mark.parametrize('name', KINDS)
def test_accepted_losses_of_one_channel_train(config, name, loss):
    binary = dict(out_channels=1, threshold=0.5, loss_decode=loss)
    losses, accuracies = step(bn(config(name, auxiliary=binary, **binary)))
    assert all(value > 1e-3 for value in losses.values()), losses
    assert all(0 < value < 100 for value in accuracies.values()) and accuracies


def test_dice_loss_of_one_channel_is_refused_and_its_remedy_trains(config):
    binary = dict(out_channels=1, threshold=0.5, loss_decode=dict(type='DiceLoss'))
    cfg = config(**binary)
    assert "give it dict(type='BinaryDiceLoss')" in error_of(cfg)
    cfg.model.decode_head.loss_decode.type = 'BinaryDiceLoss'
    losses, _ = step(bn(cfg))
    assert 0 < losses['decode.loss_bdice'] < 1


@pytest.mark.parametrize('threshold', [0, 1, -0.4, 128, 'half'])
def test_threshold_that_is_no_probability_is_refused(config, threshold):
    cfg = config(out_channels=1, loss_decode=SIGMOID, threshold=threshold)
    message = error_of(cfg)
    assert f'model.decode_head.threshold is {threshold!r}' in message
    cfg.model.decode_head.threshold = 0.5
    assert check_config(cfg, LOADERS) is None


def test_two_class_weights_of_one_channel_are_refused(config):
    cfg = config(out_channels=1, threshold=0.5,
                 loss_decode=dict(SIGMOID, class_weight=[1., 4.]))
    assert 'class_weight has 2 numbers; for one channel give one' in error_of(cfg)
    cfg.model.decode_head.loss_decode.class_weight = [4.]
    weighed, _ = step(bn(copy.deepcopy(cfg)))
    assert weighed['decode.loss_ce'] > 0.3


def test_more_channels_are_not_checked(config):
    for loss in (dict(type='CrossEntropyLoss'), dict(type='DiceLoss'), SIGMOID):
        assert check_config(config(loss_decode=loss), LOADERS) is None


@pytest.mark.parametrize('key, value', [
    ('decode_head', 3), ('auxiliary_head', ['x']), ('data_preprocessor', 'x')])
def test_values_of_another_type_are_refused(config, key, value):
    cfg = config()
    cfg.model[key] = value
    assert error_of(cfg).startswith('config: ')


def test_cascade_of_heads_is_checked(config):
    cfg = config()
    head = cfg.model.decode_head
    cfg.model.decode_head = [head, {**head, 'out_channels': 1}]
    assert error_of(cfg).startswith('model.decode_head[1].out_channels is 1')
    cfg.model.decode_head = [head, copy.deepcopy(head)]
    assert check_config(cfg, LOADERS) is None
