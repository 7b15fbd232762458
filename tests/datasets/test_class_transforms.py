"""RandomResizedCrop and PackClassInputs."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.structures import BaseDataElement

from mmseg_encstdc.datasets import PackClassInputs, RandomResizedCrop

sides = st.integers(1, 200)


def area_and_ratio(crop, height, width):
    _, _, h, w = crop
    return h * w / (height * width), w / h


# --- RandomResizedCrop -------------------------------------------------------


@given(sides, sides)
def test_crop_is_inside_the_image(height, width):
    crop = RandomResizedCrop(8)
    top, left, h, w = crop.draw(height, width)
    assert 0 <= top and 1 <= h and top + h <= height
    assert 0 <= left and 1 <= w and left + w <= width


def test_crop_area_and_log_ratio_are_uniform():
    crop = RandomResizedCrop(8)
    drawn = np.array([
        area_and_ratio(crop.draw(4000, 4000), 4000, 4000) for _ in range(4000)])
    area, log_ratio = drawn[:, 0], np.log(drawn[:, 1])
    # The largest areas fit at few ratios only, so look below them.
    low = area[area < .7]
    assert area.min() >= .08 - 1e-3 and area.max() <= 1
    assert low.mean() == pytest.approx((.08 + .7) / 2, abs=.01)
    assert log_ratio.min() >= math.log(3 / 4) - 1e-3
    assert log_ratio.max() <= math.log(4 / 3) + 1e-3
    assert log_ratio.mean() == pytest.approx(0, abs=.01)
    thirds = np.histogram(log_ratio[area < .7], 3)[0] / len(low)
    assert thirds == pytest.approx([1 / 3] * 3, abs=.03)


def test_crop_reaches_every_border():
    crop = RandomResizedCrop(8, area=(.25, .25), ratio=(1, 1))
    tops, lefts, _, _ = zip(*(crop.draw(8, 8) for _ in range(300)))
    assert set(tops) == set(lefts) == set(range(5))


@pytest.mark.parametrize('height, width, crop', [
    (100, 10, (43, 0, 13, 10)),  # 10 / (3 / 4) high
    (10, 100, (0, 43, 10, 13)),  # 10 * 4 / 3 wide
    (10, 11, (0, 0, 10, 11)),
    (1, 50, (0, 24, 1, 1)),
])
def test_centre_is_largest_crop_of_accepted_ratio(height, width, crop):
    assert RandomResizedCrop(8).centre(height, width) == crop


def test_draw_falls_back_to_centre():
    crop = RandomResizedCrop(8, area=(1, 1))
    assert crop.draw(10, 100) == crop.centre(10, 100)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_crop_is_resized_to_a_square(backend):
    image = np.random.randint(0, 256, (40, 60, 3), np.uint8)
    crop = RandomResizedCrop(24, area=(1, 1), ratio=(1.5, 1.5), backend=backend)
    found = crop.transform(dict(img=image))
    assert found['img'].shape == (24, 24, 3) and found['img'].dtype == np.uint8
    assert found['img_shape'] == (24, 24)
    assert found['img'].mean() == pytest.approx(image.mean(), abs=3)


def test_crop_of_target_size_keeps_pixels(monkeypatch):
    image = np.random.randint(0, 256, (40, 60, 3), np.uint8)
    crop = RandomResizedCrop(24)
    monkeypatch.setattr(crop, 'draw', lambda *_: (5, 7, 24, 24))
    found = crop.transform(dict(img=image))['img']
    assert np.array_equal(found, image[5:29, 7:31])


@pytest.mark.parametrize('kwargs, message', [
    (dict(size=0), 'size must be a number of pixels, got 0'),
    (dict(size=(224, 224)), r'size must be .* got \(224, 224\)'),
    (dict(size=8, area=(0, 1)), r'area must be an interval in \(0, 1\]'),
    (dict(size=8, area=(.5, .4)), 'area must be'),
    (dict(size=8, area=(.5, 1.1)), 'area must be'),
    (dict(size=8, ratio=(0, 1)), 'ratio must be an interval of positive'),
    (dict(size=8, ratio=(2, 1)), 'ratio must be'),
])
def test_crop_rejects_invalid_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RandomResizedCrop(**kwargs)


def test_crop_repr_shows_all_arguments():
    assert repr(RandomResizedCrop(8, (.1, 1), (1, 2), 'nearest', 'pillow')) == (
        "RandomResizedCrop(size=8, area=(0.1, 1), ratio=(1, 2), "
        "interpolation='nearest', backend='pillow')")


# --- PackClassInputs ---------------------------------------------------------


def test_pack_converts_image_and_label_to_tensors():
    image = np.random.randint(0, 256, (4, 6, 3), np.uint8)[:, ::-1]  # as flipped
    found = PackClassInputs()(dict(
        img=image, gt_label=3, img_path='a.jpg', ori_shape=(9, 9), sample_idx=1))
    assert found['inputs'].dtype == torch.uint8
    assert np.array_equal(found['inputs'].permute(1, 2, 0).numpy(), image)
    sample = found['data_samples']
    assert type(sample) is BaseDataElement
    assert sample.gt_label.shape == () and sample.gt_label.dtype == torch.int64
    assert sample.metainfo == dict(img_path='a.jpg', ori_shape=(9, 9))


def test_pack_accepts_class_0_and_no_label():
    image = np.zeros((2, 2, 3), np.uint8)
    assert PackClassInputs()(dict(img=image, gt_label=0))['data_samples'].gt_label == 0
    assert 'gt_label' not in PackClassInputs()(dict(img=image))['data_samples']


def test_pack_copies_meta_keys():
    pack = PackClassInputs(meta_keys=['flip'])
    found = pack(dict(img=np.zeros((2, 2, 3), np.uint8), flip=True, img_path='a'))
    assert found['data_samples'].metainfo == dict(flip=True)
    assert repr(pack) == "PackClassInputs(meta_keys=('flip',))"
