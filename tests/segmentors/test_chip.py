"""ChipEncoderDecoder's protocols match plain loops."""
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS

from mmseg_encstdc.segmentors import ChipEncoderDecoder
from mmseg_encstdc.segmentors.chip import chip_size, chip_starts

CLASSES = 4
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
WHOLE = dict(mode='whole')
SLIDE = dict(mode='slide', crop_size=(16, 16), stride=(10, 10))


def model_config(kind, test_cfg):
    """Return the config of a small segmentor of stock parts."""
    norm = dict(type='BN')
    return dict(
        type=kind,
        data_preprocessor=dict(type='SegDataPreProcessor', mean=MEAN, std=STD),
        backbone=dict(type='ResNetV1c', depth=18, base_channels=4, num_stages=2,
                      stem_channels=4, strides=(1, 2), dilations=(1, 1),
                      out_indices=(0, 1), norm_cfg=norm),
        decode_head=dict(type='FCNHead', in_channels=8, in_index=1, channels=8,
                         num_convs=1, num_classes=CLASSES, norm_cfg=norm),
        train_cfg=dict(), test_cfg=test_cfg)


def build(kind, **test_cfg):
    """Build a segmentor; equal seeds give equal weights."""
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(model_config(kind, test_cfg))).eval()


class Convolution(ChipEncoderDecoder):
    """Replace the network by one 3 x 3 convolution, padded with zeros.

    The kernel is asymmetric, so flipping changes the result; the padding makes it
    depend on the position of the crop.
    """

    def encode_decode(self, inputs, batch_img_metas):
        assert len(batch_img_metas) == inputs.size(0)
        assert tuple(batch_img_metas[0]['img_shape']) == tuple(inputs.shape[2:])
        self.seen.append(tuple(inputs.shape[2:]))
        generator = torch.Generator().manual_seed(0)
        kernel = torch.randn(CLASSES, 3, 3, 3, generator=generator) / 5
        return F.conv2d(inputs, kernel.to(inputs), padding=1)


def convolution(**test_cfg):
    """Build the segmentor above; ``seen`` lists the sizes of its inputs."""
    model = Convolution(**{
        key: value for key, value in
        ConfigDict(model_config('', test_cfg)).items() if key != 'type'})
    model.seen = []
    return model


def metas_of(images):
    return [dict(ori_shape=images.shape[2:], img_shape=images.shape[2:])
            for _ in range(images.size(0))]


def resize(x, height, width):
    return F.interpolate(x, (height, width), mode='bilinear', align_corners=True)


def network(model, crop):
    """Return the logits of a crop and of its mirror image, flipped back."""
    metas = metas_of(crop)
    straight = model.encode_decode(crop, metas)
    mirrored = model.encode_decode(crop.flip(3), metas).flip(3)
    return straight, mirrored


# --- whole and slide ---------------------------------------------------------


@pytest.mark.parametrize('test_cfg', [WHOLE, SLIDE], ids=['whole', 'slide'])
def test_stock_modes_match_encoder_decoder(test_cfg):
    images = torch.randn(2, 3, 24, 33)
    ours, stock = (build(kind, **test_cfg)
                   for kind in ('ChipEncoderDecoder', 'EncoderDecoder'))
    assert type(stock) is EncoderDecoder
    with torch.no_grad():
        found = ours.predict(images)
        expected = stock.predict(images)
    for a, b in zip(found, expected):
        assert torch.equal(a.seg_logits.data, b.seg_logits.data)
        assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data)


def test_training_methods_are_inherited():
    for name in ('loss', 'extract_feat', 'encode_decode', 'postprocess_result'):
        assert getattr(ChipEncoderDecoder, name) is getattr(EncoderDecoder, name)


@pytest.mark.parametrize('scale', [0.5, 0.75])
def test_scale_resizes_image_then_logits(scale):
    images = torch.randn(2, 3, 21, 30)
    model = convolution(mode='whole', scale=scale)
    found = model.inference(images, metas_of(images))
    small = resize(images, int(21 * scale), int(30 * scale))
    assert model.seen == [tuple(small.shape[2:])]
    expected = resize(model.encode_decode(small, metas_of(small)), 21, 30)
    torch.testing.assert_close(found, expected)


def test_scale_applies_before_sliding_window():
    images = torch.randn(1, 3, 40, 48)
    model = convolution(scale=0.5, **SLIDE)
    found = model.inference(images, metas_of(images))
    small = resize(images, 20, 24)
    stock = convolution(**SLIDE)
    expected = resize(stock.inference(small, metas_of(small)), 40, 48)
    torch.testing.assert_close(found, expected)
    assert set(model.seen) == {(16, 16)}


def test_scale_1_does_not_resize():
    images = torch.randn(1, 3, 8, 9)
    model = convolution(mode='whole', scale=1)
    found = model.inference(images, metas_of(images))
    assert torch.equal(found, model.encode_decode(images, metas_of(images)))


def test_scale_predictions_have_image_size():
    images = torch.randn(1, 3, 24, 32)
    result, = build('ChipEncoderDecoder', mode='whole', scale=0.5).predict(images)
    assert result.pred_sem_seg.data.shape == (1, 24, 32)


# --- chip --------------------------------------------------------------------


def encnet_by_loops(model, images, base_size, crop, scales):
    """Evaluate like PyTorch-Encoding, by loops.

    The longer side becomes base_size * s. Images smaller than a crop are padded with
    black to the right and bottom. Crops begin every 2/3 of a crop, and the last is
    padded with black. Each scores exp(logits + flipped logits); overlaps are averaged,
    scales added.
    """
    height, width = images.shape[2:]
    black = (-torch.tensor(MEAN) / torch.tensor(STD)).view(1, 3, 1, 1)

    def fill(x, to_height, to_width):
        filled = black.expand(x.size(0), 3, to_height, to_width).clone()
        filled[:, :, :x.size(2), :x.size(3)] = x
        return filled

    scores = torch.zeros(images.size(0), CLASSES, height, width)
    for scale in scales:
        longer = math.ceil(base_size * scale)
        if height > width:
            h, w = longer, int(width * longer / height + .5)
        else:
            h, w = int(height * longer / width + .5), longer
        image = fill(resize(images, h, w), max(h, crop), max(w, crop))
        total = torch.zeros(images.size(0), CLASSES, *image.shape[2:])
        count = torch.zeros(1, 1, *image.shape[2:])
        stride = crop * 2 // 3
        top = 0
        while True:
            left = 0
            while True:
                piece = image[:, :, top:top + crop, left:left + crop]
                rows, columns = piece.shape[2:]
                straight, mirrored = network(model, fill(piece, crop, crop))
                score = (straight + mirrored).exp()[:, :, :rows, :columns]
                total[:, :, top:top + crop, left:left + crop] += score
                count[:, :, top:top + crop, left:left + crop] += 1
                if left + crop >= image.size(3):
                    break
                left += stride
            if top + crop >= image.size(2):
                break
            top += stride
        scores += resize((total / count)[:, :, :h, :w], height, width)
    return scores


def stdc_by_loops(model, images, crop, scales):
    """Evaluate like STDC-Seg's eval_chip, by loops.

    Crops begin every 5/6 of a crop, and the last is moved inside the image. Each
    scores exp(softmax + flipped softmax); overlaps and scales are added.
    """
    height, width = images.shape[2:]
    scores = torch.zeros(images.size(0), CLASSES, height, width)
    for scale in scales:
        h, w = int(height * scale), int(width * scale)
        image = resize(images, h, w)
        total = torch.zeros(images.size(0), CLASSES, h, w)
        stride = crop * 5 // 6
        for i in range(math.ceil((h - crop) / stride) + 1):
            for j in range(math.ceil((w - crop) / stride) + 1):
                bottom = min(i * stride + crop, h)
                right = min(j * stride + crop, w)
                window = (..., slice(bottom - crop, bottom),
                          slice(right - crop, right))
                straight, mirrored = network(model, image[window])
                score = (straight.softmax(1) + mirrored.softmax(1)).exp()
                total[window] += score
        scores += resize(total, height, width)
    return scores


ENCNET = dict(mode='chip', protocol='encnet', stride_rate=2 / 3, flip=True)
STDC = dict(mode='chip', protocol='stdc', stride_rate=5 / 6, flip=True)


@pytest.mark.parametrize('size', [(20, 28), (28, 20), (24, 24), (13, 31)])
@pytest.mark.parametrize('base_size, crop, scales', [
    (26, 30, (1., )),  # one crop larger than the image
    (30, 30, (1., )),  # one crop as long as the image
    (40, 15, (1., )),  # many crops, the last of them padded
    (26, 12, (0.5, 1., 1.75)),
])
def test_encnet_protocol_matches_loops(size, base_size, crop, scales):
    images = torch.randn(2, 3, *size)
    model = convolution(
        **ENCNET, base_size=base_size, crop_size=crop, scales=scales)
    found = model.inference(images, metas_of(images))
    expected = encnet_by_loops(model, images, base_size, crop, scales)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('size', [(20, 28), (28, 20), (24, 24)])
@pytest.mark.parametrize('crop, scales', [
    (18, (1., )),
    (12, (1., )),
    (6, (0.5, 1., 1.75)),
])
def test_stdc_protocol_matches_loops(size, crop, scales):
    images = torch.randn(2, 3, *size)
    model = convolution(**STDC, crop_size=crop, scales=scales)
    found = model.inference(images, metas_of(images))
    expected = stdc_by_loops(model, images, crop, scales)
    torch.testing.assert_close(found, expected)


def test_stdc_protocol_scores_one_crop_once():
    images = torch.randn(1, 3, 12, 12)
    model = convolution(**STDC, crop_size=12)
    found = model.inference(images, metas_of(images))
    straight, mirrored = network(model, images)
    expected = (straight.softmax(1) + mirrored.softmax(1)).exp()
    torch.testing.assert_close(found, expected)


def test_stdc_protocol_pads_with_mean_colour():
    images = torch.randn(1, 3, 10, 12)
    model = convolution(**{**STDC, 'flip': False}, crop_size=12)
    found = model.inference(images, metas_of(images))
    assert model.seen == [(12, 12)]
    # The convolution pads with zeros too, so the padding changes nothing.
    expected = model.encode_decode(images, metas_of(images)).softmax(1).exp()
    torch.testing.assert_close(found, expected)


def test_encnet_protocol_pads_with_black():
    images = torch.randn(1, 3, 10, 12)
    model = convolution(**{**ENCNET, 'flip': False}, crop_size=12)
    found = model.inference(images, metas_of(images))
    mean_padded = model.encode_decode(images, metas_of(images)).exp()
    torch.testing.assert_close(found[:, :, :9], mean_padded[:, :, :9])
    assert (found[:, :, 9] - mean_padded[:, :, 9]).abs().max() > 0.1


@pytest.mark.parametrize('protocol', ['encnet', 'stdc'])
def test_chip_without_flip_scores_the_image_only(protocol):
    images = torch.randn(1, 3, 12, 12)
    model = convolution(mode='chip', protocol=protocol, stride_rate=0.5, crop_size=12)
    found = model.inference(images, metas_of(images))
    logits = model.encode_decode(images, metas_of(images))
    expected = (logits if protocol == 'encnet' else logits.softmax(1)).exp()
    torch.testing.assert_close(found, expected)
    assert len(model.seen) == 2


@pytest.mark.parametrize('protocol', ['encnet', 'stdc'])
def test_chip_scores_images_of_a_batch_independently(protocol):
    images = torch.randn(3, 3, 14, 17)
    model = convolution(mode='chip', protocol=protocol, stride_rate=0.5,
                        crop_size=8, scales=(0.75, 1.), flip=True)
    together = model.inference(images, metas_of(images))
    for i in range(3):
        one = images[i:i + 1]
        alone = model.inference(one, metas_of(one))
        torch.testing.assert_close(together[i:i + 1], alone)


@pytest.mark.parametrize('protocol', ['encnet', 'stdc'])
def test_chip_predicts_every_pixel_of_a_network(protocol):
    model = build('ChipEncoderDecoder', mode='chip', protocol=protocol,
                  crop_size=16, stride_rate=2 / 3, base_size=24,
                  scales=(0.75, 1.25), flip=True)
    with torch.no_grad():
        results = model.predict(torch.randn(2, 3, 20, 26))
    for result in results:
        assert result.pred_sem_seg.data.shape == (1, 20, 26)
        assert torch.equal(result.pred_sem_seg.data[0],
                           result.seg_logits.data.argmax(0))
        assert result.seg_logits.data.min() > 0  # every crop scores exp(...)


@pytest.mark.parametrize('key', ['protocol', 'crop_size', 'stride_rate'])
def test_chip_config_rejects_missing_key(key):
    cfg = dict(mode='chip', protocol='stdc', crop_size=8, stride_rate=0.5)
    del cfg[key]
    with pytest.raises(ValueError, match=f"mode 'chip' needs {key}$"):
        build('ChipEncoderDecoder', **cfg)


def test_chip_config_rejects_unknown_protocol():
    with pytest.raises(ValueError, match=r"\['encnet', 'stdc'\], got 'mine'"):
        build('ChipEncoderDecoder', mode='chip', protocol='mine', crop_size=8,
              stride_rate=0.5)


@pytest.mark.parametrize('name', ['ade20k', 'camvid_encnet', 'camvid_stdc',
                                  'cityscapes_encnet', 'cityscapes_stdc'])
def test_test_modes_of_configs_build(root, name):
    from mmengine.config import Config
    cfg = Config.fromfile(root / 'configs/_base_/datasets' / f'{name}.py')
    chip = build('ChipEncoderDecoder', **cfg.test_modes.chip.test_cfg)
    assert chip.test_cfg.protocol == ('stdc' if 'stdc' in name else 'encnet')
    assert chip.test_cfg.flip
    assert build('ChipEncoderDecoder', **cfg.test_modes.slide.test_cfg)


# --- Sizes and positions of crops --------------------------------------------


@given(st.integers(1, 60), st.integers(0, 200), st.data())
def test_chip_starts_cover_every_pixel(crop, more, data):
    side = crop + more
    stride = data.draw(st.integers(1, crop))
    for shift_last in (False, True):
        starts = chip_starts(side, crop, stride, shift_last)
        covered = set()
        for start in starts:
            covered |= set(range(start, start + crop))
        assert covered >= set(range(side))
        assert starts == sorted(set(starts)) and starts[0] == 0
        assert not starts[1:] or starts[-2] + crop < side
        if shift_last:
            assert starts[-1] + crop == side
        else:
            assert starts == [i * stride for i in range(len(starts))]


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.5, 2.25),
       st.sampled_from([480, 520, 1024]))
def test_chip_size_with_base_size_keeps_aspect_ratio(height, width, scale, base):
    found = chip_size((height, width), scale, base)
    longer = max(height, width)
    target = math.ceil(base * scale)
    assert max(found) == target
    for new, old in zip(found, (height, width)):
        assert abs(new - max(old * target / longer, 1)) <= 0.5


def test_chip_size_without_base_size_rounds_down():
    assert chip_size((375, 500), 0.75) == [281, 375]


def test_chip_size_matches_the_authors():
    sizes = [chip_size((512, 683), s, 520) for s in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]
    assert sizes == [[195, 260], [292, 390], [390, 520], [487, 650], [585, 780],
                     [682, 910]]


@pytest.mark.parametrize('change, message', [
    (dict(stride_rate=1.5), 'stride_rate must be between'),
    (dict(stride_rate=0), 'stride_rate must be between'),
    (dict(crop_size=(8, 8)), 'crop_size must be the side'),
    (dict(scales=()), 'scales must name at least one'),
])
def test_chip_config_rejects_invalid_values(change, message):
    cfg = dict(mode='chip', protocol='stdc', crop_size=8, stride_rate=0.5)
    with pytest.raises(ValueError, match=message):
        build('ChipEncoderDecoder', **{**cfg, **change})


def test_chip_size_is_at_least_one_pixel():
    assert chip_size((1, 1), 0.5) == chip_size((1, 1), 0.5, base_size=1) == [1, 1]
