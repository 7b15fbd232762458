"""STDCClassifier matches its formula."""
import copy

import pytest
import torch
from mmengine.structures import BaseDataElement
from mmseg.registry import MODELS

from mmseg_encstdc.classifiers import STDCClassifier
from mmseg_encstdc.errors import InputError

CLASSES = 7
CHANNELS = (4, 8, 16, 16, 32)


def config(classes=CLASSES, **kwargs):
    """Return the config of a narrow network; its head has 1024 channels."""
    backbone = dict(type='STDCNet', stdc_type='STDCNet1', channels=CHANNELS,
                    with_final_conv=True, out_strides=(32, ))
    backbone.update(kwargs.pop('backbone', {}))
    return dict(type='STDCClassifier', backbone=backbone, num_classes=classes,
                **kwargs)


def build(**kwargs):
    """Build in float64, with linear weights large enough to compare."""
    model = MODELS.build(config(**kwargs)).double()
    for layer in (model.fc, model.linear):
        torch.nn.init.normal_(layer.weight, std=.1)
    return model


def samples(*labels):
    found = [BaseDataElement() for _ in labels]
    for sample, label in zip(found, labels):
        sample.gt_label = torch.tensor(label)
    return found


def images(count=3, height=64, width=96):
    return torch.randn(count, 3, height, width, dtype=torch.float64)


def logits_by_loops(model, x):
    """Compute logits by the formula, one image and one neuron at a time."""
    rows = []
    for features in model.backbone(x)[-1]:  # (1024, h, w)
        pooled = [float((plane * plane).sum()) / plane.numel() for plane in features]
        pooled = torch.tensor(pooled, dtype=torch.float64)
        hidden = [max(float((w * pooled).sum()), 0.) for w in model.fc.weight]
        hidden = torch.tensor(hidden, dtype=torch.float64)
        rows.append([float((w * hidden).sum()) for w in model.linear.weight])
    return torch.tensor(rows, dtype=torch.float64)


# --- Architecture ------------------------------------------------------------


@pytest.mark.parametrize('size', [(32, 32), (64, 96), (50, 33)])
def test_logits_shape(size):
    model = build().eval()
    assert model(images(2, *size)).shape == (2, CLASSES)


@torch.no_grad()
def test_logits_match_loops():
    model, x = build().eval(), images()
    expected = logits_by_loops(model, x)
    assert torch.allclose(model(x), expected, rtol=1e-9, atol=1e-12)
    assert expected.std() > 0


@pytest.mark.parametrize('kind, blocks', [('STDCNet1', (2, 2, 2)),
                                          ('STDCNet2', (4, 5, 3))])
def test_state_dict_matches_the_authors(kind, blocks):
    with torch.device('meta'):
        model = MODELS.build(config(1000, backbone=dict(
            stdc_type=kind, channels=(32, 64, 256, 512, 1024))))
    weights = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    head = {key: shape for key, shape in weights.items()
            if not key.startswith('backbone.stages')}
    assert {k: s for k, s in head.items() if '.bn.' not in k} == {
        'backbone.final_conv.conv.weight': (1024, 1024, 1, 1),
        'fc.weight': (1024, 1024), 'linear.weight': (1000, 1024)}
    assert {k.rsplit('.', 1)[0] for k in head if '.bn.' in k} == {
        'backbone.final_conv.bn'}
    stages = [len(stage) for stage in model.backbone.stages[2:]]
    assert tuple(stages) == blocks


def test_head_channels_are_those_of_final_conv():
    model = MODELS.build(config(backbone=dict(channels=(4, 8, 16, 16, 1040))))
    assert model.fc.weight.shape == (1040, 1040)
    assert model.linear.weight.shape == (CLASSES, 1040)


def test_logits_use_the_last_map_of_the_backbone():
    torch.manual_seed(1)
    alone = build().eval()
    torch.manual_seed(1)
    among = build(backbone=dict(out_strides=(8, 16, 32))).eval()
    x = images(1)
    assert torch.equal(alone(x), among(x))


def test_init_weights_matches_the_authors():
    model = MODELS.build(config())
    model.init_weights()
    for layer in (model.fc, model.linear):
        assert layer.weight.detach().std() == pytest.approx(1e-3, rel=.05)
    conv = model.backbone.final_conv.conv.weight.detach()  # Kaiming, fan out
    assert conv.std() == pytest.approx((2 / 1024)**.5, rel=.05)


@pytest.mark.parametrize('backbone', [
    dict(with_final_conv=False), dict(out_strides=(32, 8)),
    dict(out_strides=(16, ))])
def test_classifier_rejects_other_backbones(backbone):
    with pytest.raises(InputError, match='with_final_conv=True .* out_strides is 32'):
        MODELS.build(config(backbone=backbone))


@pytest.mark.parametrize('label_smooth', [-.1, 1., 2])
def test_classifier_rejects_invalid_label_smooth(label_smooth):
    with pytest.raises(InputError, match=r'label_smooth must be in \[0, 1\)'):
        MODELS.build(config(label_smooth=label_smooth))


def test_classifier_rejects_unknown_mode():
    with pytest.raises(ValueError, match="'tensor', 'loss' or 'predict', got 'x'"):
        build()(images(), mode='x')


# --- Training ----------------------------------------------------------------


def test_dropout_is_active_in_training_only():
    model, x = build(dropout_ratio=.5), images()
    model.backbone.eval()  # its norms would differ too
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_dropout_acts_on_the_hidden_neurons():
    model, seen = build(dropout_ratio=.2), []
    model.linear.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    x = images(8)
    model.backbone.eval()
    model(x)
    model.eval()
    model(x)
    dropped, full = seen
    kept = (dropped != 0)[full > 0]
    assert kept.float().mean() == pytest.approx(.8, abs=.03)
    assert torch.allclose(dropped[dropped != 0], full[dropped != 0] / .8)


@pytest.mark.parametrize('smooth', [0., .1])
def test_loss_matches_formula(smooth):
    model, x, labels = build(label_smooth=smooth).eval(), images(), [3, 0, 6]
    found = model(x, samples(*labels), mode='loss')
    log_p = model(x).log_softmax(1)
    target = torch.full_like(log_p, smooth / CLASSES)
    for row, label in zip(target, labels):
        row[label] += 1 - smooth
    expected = -(target * log_p).sum(1).mean()
    assert found['loss_cls'].item() == pytest.approx(expected.item(), rel=1e-12)


def test_loss_logs_top1():
    model, x = build().eval(), images(4)
    labels = model(x).argmax(1).tolist()
    labels[3] = (labels[3] + 1) % CLASSES
    losses = model(x, samples(*labels), mode='loss')
    assert losses['top1'].item() == 75
    total, log = model.parse_losses(losses)
    assert total.item() == losses['loss_cls'].item()
    assert set(log) == {'loss', 'loss_cls', 'top1'}


def test_gradients_reach_every_parameter():
    model = build().train()
    total, _ = model.parse_losses(model(images(4), samples(0, 1, 2, 3), mode='loss'))
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_head_gradcheck():
    model = build(dropout_ratio=0.).train()
    model.backbone.eval()
    features = model.backbone(images(2))[-1].detach().requires_grad_()

    class Fixed(torch.nn.Module):
        def forward(self, x):
            return (x, )

    model.backbone = Fixed()
    # Few weights, so that the numeric gradient is quick.
    head = copy.deepcopy(model)
    head.fc = torch.nn.Linear(5, 4, bias=False).double()
    head.linear = torch.nn.Linear(4, 3, bias=False).double()
    few = features[:, :5].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: head(x), (few, ))


# --- Prediction --------------------------------------------------------------


def test_predict_adds_to_data_samples():
    model, x, given = build().eval(), images(2), samples(1, 2)
    found = model(x, given, mode='predict')
    assert found[0] is given[0] and found[1] is given[1]
    for sample, logits in zip(found, model(x)):
        assert torch.allclose(sample.pred_score, logits.softmax(0))
        assert sample.pred_label == logits.argmax()
    assert [int(sample.gt_label) for sample in found] == [1, 2]


def test_predict_without_data_samples():
    found = build().eval()(images(2), mode='predict')
    assert [set(sample.keys()) for sample in found] == [
        {'pred_score', 'pred_label'}] * 2


def test_test_step_applies_data_preprocessor():
    mean, std = [1., 2., 3.], [4., 5., 6.]
    model = build(data_preprocessor=dict(
        type='ImgDataPreprocessor', mean=mean, std=std, bgr_to_rgb=True)).eval()
    raw = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    rgb = raw.flip(1).float()
    normal = (rgb - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    model = model.float()
    found = model.test_step(dict(inputs=list(raw), data_samples=samples(0, 1)))
    expected = model(normal).softmax(1)
    for sample, scores in zip(found, expected):
        assert torch.allclose(sample.pred_score, scores, atol=1e-6)


def test_registry_builds_classifier():
    assert type(MODELS.build(config())) is STDCClassifier
