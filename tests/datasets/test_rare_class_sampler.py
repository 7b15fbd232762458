"""Test the sampler that draws images with rare classes more often."""
from itertools import islice

import numpy as np
import pytest
from mmengine.registry import DATA_SAMPLERS
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmseg_encstdc.datasets import rare_class_sampler as module
from mmseg_encstdc.datasets.rare_class_sampler import class_probabilities
from mmseg_encstdc.errors import InputError

IMAGES = 8


@pytest.fixture
def dataset(tmp_path):
    """Return images of class 0, of which the last has a few pixels of class 1."""
    for i in range(IMAGES):
        label = np.zeros((20, 30), np.uint8)
        label[0] = 255
        if i == IMAGES - 1:
            label[5, :10] = 1
        for folder, pixels in (('images', np.stack([label] * 3, 2)), ('labels', label)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f'{i}.png')
    return BaseSegDataset(
        data_root=str(tmp_path), img_suffix='.png',
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        metainfo=dict(classes=('a', 'b', 'c')),
        pipeline=[dict(type='LoadSegImage'), dict(type='LoadSegAnnotations')])


def build(dataset, **kwargs):
    return DATA_SAMPLERS.build(
        dict(type='RareClassSampler', **kwargs), default_args=dict(dataset=dataset))


def test_class_probabilities_equal_formula():
    frequencies = np.array([0.5, 0.3, 0.2, 0])
    expected = np.exp((1 - frequencies[:3]) / 0.2)
    np.testing.assert_allclose(class_probabilities(frequencies, 0.2),
                               [*expected / expected.sum(), 0])


def test_rare_class_sampler_draws_images_of_rare_class_more_often(dataset):
    sampler = build(dataset, temperature=0.5, seed=0)
    assert module.count_classes(dataset)[-1].tolist() == [560, 10, 0]
    p = sampler.probabilities
    assert p[2] == 0 and p[1] > p[0]
    drawn = np.bincount(list(islice(sampler, 4000)), minlength=IMAGES) / 4000
    assert drawn[-1] == pytest.approx(p[1] + p[0] / IMAGES, abs=0.03)
    assert drawn[:-1] == pytest.approx(p[0] / IMAGES, abs=0.02)
    assert len(sampler) == IMAGES


def test_rare_class_sampler_repeats_its_sequence_and_splits_it(dataset, monkeypatch):
    def draw(count, seed=3):
        return list(islice(build(dataset, temperature=1, seed=seed), count))

    whole = draw(20)
    assert whole == draw(20) and whole != draw(20, seed=4)
    for rank in (0, 1):
        monkeypatch.setattr(module, 'get_dist_info', lambda rank=rank: (rank, 2))
        assert draw(10) == whole[rank::2]


@pytest.mark.parametrize('kwargs, words', [
    (dict(temperature=0), 'RareClassSampler.temperature is 0'),
    (dict(min_pixels=-1), 'RareClassSampler.min_pixels is -1')])
def test_rare_class_sampler_rejects_arguments(dataset, kwargs, words):
    with pytest.raises(InputError, match=words):
        build(dataset, **kwargs)


def test_rare_class_sampler_rejects_data_set_without_label_loader(dataset):
    dataset.pipeline.transforms.pop()
    with pytest.raises(InputError, match='whose pipeline loads labels'):
        build(dataset)
