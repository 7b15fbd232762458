"""Networks of one channel, and of two, give the right labels in every mode."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel as StockSegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_encstdc.segmentors import ChipEncoderDecoder, SegTTAModel

THRESHOLD = 0.3
CHIP = dict(mode='chip', crop_size=8, stride_rate=0.5, scales=(0.75, 1.), flip=True)
SLIDE = dict(mode='slide', crop_size=(8, 8), stride=(5, 5))


class Map(ChipEncoderDecoder):
    """Replace the network by one 3 x 3 convolution of one channel.

    The logit of the background is that of ``THRESHOLD`` in two channels, so that the
    larger one is the label at this threshold.
    """

    def encode_decode(self, inputs, batch_img_metas):
        generator = torch.Generator().manual_seed(0)
        kernel = torch.randn(1, 3, 3, 3, generator=generator)
        logits = F.conv2d(inputs, kernel.to(inputs), padding=1) / 2
        if self.out_channels == 1:
            return logits
        background = torch.full_like(logits, THRESHOLD).logit()
        return torch.cat([background, logits], 1)


def network(channels, test_cfg, kind=Map):
    """Build a binary network, in float64."""
    head = dict(type='FCNHead', in_channels=8, in_index=1, channels=8, num_convs=1,
                num_classes=2, out_channels=channels, threshold=THRESHOLD)
    return kind(
        backbone=dict(type='ResNetV1c', depth=18, base_channels=4, num_stages=2,
                      stem_channels=4, strides=(1, 2), dilations=(1, 1),
                      out_indices=(0, 1)),
        data_preprocessor=ConfigDict(type='SegDataPreProcessor', mean=[0.] * 3,
                                     std=[1.] * 3),
        decode_head=ConfigDict(head), test_cfg=ConfigDict(test_cfg)).eval().double()


def predict(channels, test_cfg):
    images = torch.randn(2, 3, 13, 17, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return images, network(channels, test_cfg).predict(images)


@pytest.mark.parametrize('test_cfg', [
    dict(mode='whole'), dict(mode='whole', scale=0.5), SLIDE,
    dict(protocol='encnet', **CHIP), dict(protocol='stdc', **CHIP)],
    ids=['whole', 'scale', 'slide', 'chip_encnet', 'chip_stdc'])
def test_one_channel_labels_are_those_of_two_channels(test_cfg):
    _, one = predict(1, test_cfg)
    _, two = predict(2, test_cfg)
    for a, b in zip(one, two):
        labels = a.pred_sem_seg.data
        assert labels.shape == (1, 13, 17) and a.seg_logits.data.shape == (1, 13, 17)
        assert 0.03 < labels.mean() < 0.97  # both classes occur
        assert torch.equal(labels.long(), b.pred_sem_seg.data)


def test_one_channel_scores_are_probabilities():
    images, results = predict(1, dict(mode='whole'))
    logits = network(1, dict(mode='whole')).encode_decode(images, None)
    for logit, result in zip(logits, results):
        torch.testing.assert_close(result.seg_logits.data, logit.sigmoid())
        assert torch.equal(result.pred_sem_seg.data, (logit.sigmoid() > .3).double())


@pytest.mark.parametrize('protocol', ['encnet', 'stdc'])
def test_chip_of_one_crop_compares_with_threshold(protocol):
    cfg = dict(mode='chip', protocol=protocol, crop_size=20, stride_rate=0.5)
    images, results = predict(1, cfg)
    size = images.shape[2:]
    padding = (1, 2, 3, 4) if protocol == 'stdc' else (0, 3, 0, 7)
    model = network(1, cfg)
    logits = model.encode_decode(F.pad(images, padding), None)
    logits = logits[..., padding[2]:padding[2] + size[0],
                    padding[0]:padding[0] + size[1]]
    for logit, result in zip(logits, results):
        assert torch.equal(result.pred_sem_seg.data, (logit.sigmoid() > .3).double())


def test_chip_of_extreme_logits_is_finite():
    model = network(1, dict(protocol='encnet', **CHIP))
    encode = model.encode_decode
    model.encode_decode = lambda *args: 1e4 * encode(*args)
    result = model.float().predict(torch.randn(1, 3, 13, 17))[0]
    assert result.seg_logits.data.isfinite().all()
    assert set(result.pred_sem_seg.data.unique().tolist()) == {0, 1}


@pytest.mark.parametrize('threshold', [0, 1, 1.5])
def test_chip_rejects_threshold_that_is_no_probability(threshold):
    with pytest.raises(ValueError, match=r'threshold in \(0, 1\), got'):
        cfg = dict(protocol='stdc', **CHIP)
        model = network(1, dict(mode='whole'))
        Map(backbone=ConfigDict(type='ResNet', depth=18),
            decode_head=ConfigDict(
                type='FCNHead', in_channels=8, channels=8, num_classes=2,
                out_channels=1, threshold=threshold), test_cfg=ConfigDict(cfg))
    assert model.decode_head.threshold == THRESHOLD


# --- Test-time augmentation --------------------------------------------------


def views_of(scores):
    """Return one sample for each of scores (V, C, H, W)."""
    return [SegDataSample(
        metainfo=dict(img_path=f'{i}.png'), seg_logits=PixelData(data=score),
        pred_sem_seg=PixelData(data=score[:1]),
        gt_sem_seg=PixelData(data=torch.full((1, *score.shape[1:]), i)))
        for i, score in enumerate(scores)]


def merge(kind, channels, scores):
    module = network(1, dict(mode='whole'))
    module.out_channels = channels
    model = MODELS.build(dict(type=kind, module=module))
    sample, = model.merge_preds([views_of(scores)])
    return sample


def test_tta_is_the_registered_model():
    assert MODELS.get('SegTTAModel') is SegTTAModel


@pytest.mark.parametrize('height', [1, 6])
def test_tta_of_one_channel_averages_probabilities(height):
    probability = torch.rand(4, 1, height, 7)**2  # their means are on both sides
    found = merge(SegTTAModel, 1, probability)
    expected = np.mean(probability.numpy(), 0)
    np.testing.assert_allclose(found.seg_logits.data, expected, rtol=1e-6)
    labels = found.pred_sem_seg.data
    assert labels.shape == (1, height, 7)
    assert np.array_equal(labels, expected > THRESHOLD) and 0 < labels.mean() < 1
    assert found.img_path == '0.png' and (found.gt_sem_seg.data == 0).all()


@pytest.mark.parametrize('channels', [2, 5])
def test_tta_of_more_channels_matches_mmsegmentation(channels):
    logits = 3 * torch.randn(4, channels, 6, 7)
    found, expected = (merge(kind, channels, logits)
                       for kind in (SegTTAModel, StockSegTTAModel))
    assert torch.equal(found.pred_sem_seg.data, expected.pred_sem_seg.data)
    torch.testing.assert_close(found.seg_logits.data, logits.softmax(1).mean(0))
    assert found.img_path == expected.img_path


@pytest.mark.parametrize('channels', [1, 2])
def test_tta_of_equal_views_gives_labels_of_whole(channels):
    model = network(channels, dict(mode='whole'))
    image = torch.randn(1, 3, 13, 17, dtype=torch.float64)
    result, = model.predict(image)
    tta = SegTTAModel(module=model)
    views = views_of(torch.stack([result.seg_logits.data] * 3))
    merged, = tta.merge_preds([views])
    assert torch.equal(merged.pred_sem_seg.data.double(),
                       result.pred_sem_seg.data.double())
