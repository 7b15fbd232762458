"""Loaders and augmentations, alone and in the configs' pipelines."""
import itertools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.runner import Runner
from mmseg.registry import TRANSFORMS
from PIL import Image

from mmseg_encstdc.datasets import ColorJitter, EnlargeToCrop, LoadSegAnnotations
from mmseg_encstdc.engine.configs import bind_classes, datasets_of
from mmseg_encstdc.errors import InputError

STEP = 20  # in the coded images, class c has the colour STEP * c + STEP


def write(path, array):
    """Write a lossless file and return its name."""
    Image.fromarray(array).save(path)
    return str(path)


def sample_of(**kwargs):
    """Return the sample of BaseSegDataset without the file names."""
    return dict(label_map=None, reduce_zero_label=False, seg_fields=[], **kwargs)


def smooth_image(height=30, width=40):
    """Draw a smooth image of values 20 to 119, BGR uint8."""
    image = np.random.randint(20, 120, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(image, (width, height))


# --- LoadSegAnnotations ------------------------------------------------------


def load_label(tmp_path, label, num_classes=None, **kwargs):
    path = write(tmp_path / 'a.png', np.array(label, np.uint8))
    sample = {**sample_of(seg_map_path=path), **kwargs}
    return LoadSegAnnotations(num_classes)(sample)['gt_seg_map'].tolist()


def test_load_annotations_reduces_zero_label(tmp_path):
    found = load_label(tmp_path, [[0, 1], [150, 255]], 150, reduce_zero_label=True)
    assert found == [[255, 0], [149, 255]]


def test_load_annotations_checks_ids_after_reduce_zero_label(tmp_path):
    with pytest.raises(InputError, match='a.png .* accepted are 0 to 149'):
        load_label(tmp_path, [[151, 1]], 150, reduce_zero_label=True)


def test_load_annotations_applies_label_map_once(tmp_path):
    label_map = {0: 1, 1: 2, 2: 0, 7: 255}
    found = load_label(tmp_path, [[0, 1], [2, 7]], label_map=label_map)
    assert found == [[1, 2], [0, 255]]


def test_load_annotations_checks_ids_after_label_map(tmp_path):
    found = load_label(tmp_path, [[11, 0], [1, 1]], 11, label_map={11: 255})
    assert found == [[255, 0], [1, 1]]
    with pytest.raises(InputError, match='values 12;'):
        load_label(tmp_path, [[12, 0], [1, 1]], 11, label_map={11: 255})


def test_load_annotations_accepts_image_without_label():
    for sample in (dict(img_path='a.jpg'), dict(img_path='a.jpg', seg_map_path=None)):
        assert LoadSegAnnotations(11)(dict(sample)) == sample


def test_test_pipeline_accepts_image_without_label(root, tmp_path):
    cfg = Config.fromfile(root / 'configs/_base_/datasets/camvid.py')
    path = write(tmp_path / 'a.png', smooth_image())
    packed = Compose([TRANSFORMS.build(t) for t in cfg.test_pipeline])(
        dict(img_path=path))
    assert packed['inputs'].shape == (3, 30, 40)
    assert 'gt_sem_seg' not in packed['data_samples']


def test_load_annotations_does_not_blame_file_for_settings(tmp_path):
    path = write(tmp_path / 'a.png', np.zeros((2, 2), np.uint8))
    with pytest.warns(UserWarning, match='reduce_zero_label'):
        load = LoadSegAnnotations(reduce_zero_label=True)
    with pytest.raises((AssertionError, ValueError)) as caught:
        load(sample_of(seg_map_path=path))
    assert 'reduce_zero_label' in str(caught.value)
    assert 'restore the file' not in str(caught.value)


# --- ColorJitter -------------------------------------------------------------


def jitter_with(image, factors):
    """Apply ColorJitter with given factors."""
    jitter = ColorJitter()
    jitter.factors = lambda: factors
    return jitter(dict(img=image.copy()))['img']


def grey_of(image):
    """Return the luminance of a BGR image, (H, W, 1), ITU-R 601."""
    return image @ np.array([[.114], [.587], [.299]])


def blend(image, other, factor):
    """Return factor * image + (1 - factor) * other, clipped to [0, 255]."""
    return np.clip(factor * image.astype(float) + (1 - factor) * other, 0, 255)


def test_color_jitter_of_zero_keeps_the_image():
    image = smooth_image()
    result = ColorJitter(0, 0, 0)(dict(img=image.copy()))['img']
    assert np.array_equal(result, image)


@pytest.mark.parametrize('factor', [0.5, 0.8, 1.5])
def test_color_jitter_brightness_blends_with_black(factor):
    image = smooth_image()
    expected = blend(image, 0, factor)
    assert np.abs(jitter_with(image, (factor, 1, 1)) - expected).max() <= 1


@pytest.mark.parametrize('factor', [0.5, 0.8, 1.5])
def test_color_jitter_contrast_blends_with_mean_grey(factor):
    image = smooth_image()
    expected = blend(image, grey_of(image).mean().round(), factor)
    assert np.abs(jitter_with(image, (1, factor, 1)) - expected).max() <= 1


@pytest.mark.parametrize('factor', [0.5, 0.8, 1.5])
def test_color_jitter_saturation_blends_with_grey_pixels(factor):
    image = smooth_image()
    expected = blend(image, grey_of(image), factor)
    assert np.abs(jitter_with(image, (1, 1, factor)) - expected).max() <= 1


def test_color_jitter_order_is_brightness_contrast_saturation():
    image = smooth_image() * 2  # bright enough to be clipped at 255
    other = dict(b=lambda x: 0, c=lambda x: grey_of(x).mean(), s=grey_of)
    factors = dict(b=1.5, c=0.5, s=1.5)
    result = jitter_with(image, tuple(factors.values()))
    differences = {}
    for order in itertools.permutations('bcs'):
        expected = image
        for step in order:
            expected = blend(expected, other[step](expected), factors[step])
        differences[''.join(order)] = np.abs(result - expected).max()
    assert differences.pop('bcs') <= 3
    assert min(differences.values()) > 6


def test_color_jitter_clips_at_255():
    image = np.full((4, 4, 3), 200, np.uint8)
    result = jitter_with(image, (1.5, 1, 1))
    assert result.dtype == np.uint8
    assert result.min() == 255


def test_color_jitter_factors_are_uniform():
    jitter = ColorJitter(0.5, 0.2, 3.)
    drawn = np.array([jitter.factors() for _ in range(2000)])
    for column, (low, high) in zip(drawn.T, ((.5, 1.5), (.8, 1.2), (0., 4.))):
        assert low <= column.min() and column.max() <= high
        expected = np.linspace(low, high, 5)
        quartiles = np.quantile(column, [0, .25, .5, .75, 1])
        assert np.abs(quartiles - expected).max() < 0.05 * (high - low)
    assert abs(np.corrcoef(drawn.T)[np.triu_indices(3, 1)]).max() < 0.1


@pytest.mark.parametrize('strengths', [(-.1, 0, 0), (0, -.1, 0), (0, 0, -.1)])
def test_color_jitter_rejects_negative_values(strengths):
    with pytest.raises(ValueError, match='must be >= 0'):
        ColorJitter(*strengths)


# --- EnlargeToCrop -----------------------------------------------------------


@pytest.mark.parametrize('size', [(24, 32), (24, 50), (60, 32), (90, 90)])
def test_enlarge_keeps_image_of_crop_size(size):
    image, label = smooth_image(*size), np.zeros(size, np.uint8)
    results = EnlargeToCrop((24, 32))(dict(
        img=image.copy(), gt_seg_map=label, seg_fields=['gt_seg_map'],
        img_shape=size))
    assert np.array_equal(results['img'], image)
    assert results['gt_seg_map'] is label
    assert results['img_shape'] == size


sides = st.integers(1, 60)


@given(sides, sides, sides, sides)
def test_enlarge_exceeds_crop_by_one_pixel(
        height, width, crop_height, crop_width):
    results = EnlargeToCrop((crop_height, crop_width))(dict(
        img=np.zeros((height, width, 3), np.uint8), img_shape=(height, width)))
    new_height, new_width = results['img'].shape[:2]
    assert results['img_shape'] == (new_height, new_width)
    assert new_height >= crop_height and new_width >= crop_width
    if height < crop_height or width < crop_width:
        scale = max(crop_height / height, crop_width / width)
        assert new_height - 1 == pytest.approx(height * scale, abs=1)
        assert new_width - 1 == pytest.approx(width * scale, abs=1)
        assert new_height <= crop_height + 1 or new_width <= crop_width + 1


def test_enlarge_interpolates_image_only():
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, 5:] = 200
    label = np.where(image[..., 0] > 0, 9, 255).astype(np.uint8)
    label[:3, :3] = 2
    results = EnlargeToCrop((37, 20))(dict(
        img=image, gt_seg_map=label, seg_fields=['gt_seg_map'],
        img_shape=(10, 10)))
    assert results['img'].shape[:2] == results['gt_seg_map'].shape == (38, 38)
    assert set(np.unique(results['gt_seg_map'])) == {2, 9, 255}
    assert ((results['img'] > 0) & (results['img'] < 200)).any()


def test_enlarge_resizes_image_bilinearly():
    image = smooth_image(10, 12)
    results = EnlargeToCrop((21, 12))(dict(img=image.copy(), img_shape=(10, 12)))
    expected = cv2.resize(image, (26, 22), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(results['img'], expected)


# --- The configs' training pipelines -----------------------------------------

CONFIGS = {
    'ade20k': 150,
    'camvid_encnet': 11,
    'camvid_stdc': 11,
    'cityscapes_encnet': 19,
    'cityscapes_stdc': 19,
    'coco_stuff164k': 171,
    'pascal_context_59': 59,
    'pascal_voc12_aug': 21,
}
PADDED = ['ade20k', 'camvid_encnet', 'pascal_voc12_aug']
ROTATED = ['ade20k', 'cityscapes_encnet', 'pascal_voc12_aug']
ENLARGED = ['camvid_stdc']


def dataset_config(root, name):
    """Read a file of configs/_base_/datasets."""
    return Config.fromfile(root / 'configs/_base_/datasets' / f'{name}.py')


def pipeline_of(cfg, **changes):
    """Build the training pipeline as the tools do.

    ``changes`` are arguments of transforms by type.
    """
    bind_classes(cfg, ['train_dataloader'])
    dataset = next(datasets_of(cfg.train_dataloader.dataset))
    steps = [{**step, **changes.get(step['type'], {})}
             for step in dataset.pipeline]
    return Compose([TRANSFORMS.build(step) for step in steps])


def run(pipeline, sample):
    """Return the packed image (H, W, 3), BGR uint8, and label (H, W)."""
    packed = pipeline(dict(sample, seg_fields=[]))
    label = packed['data_samples'].gt_sem_seg.data
    assert packed['inputs'].dtype == torch.uint8
    return packed['inputs'].permute(1, 2, 0).numpy(), label[0].numpy()


def coded_sample(tmp_path, height=90, width=120):
    """Write a smooth label map, and an image whose colour gives the class."""
    blobs = cv2.resize(np.random.rand(5, 6), (width, height)) * 9
    label = blobs.astype(np.uint8)  # 0 to 8
    image = np.repeat((label * STEP + STEP)[..., None], 3, 2)
    return sample_of(img_path=write(tmp_path / 'i.png', image),
                     seg_map_path=write(tmp_path / 'l.png', label))


def inside(mask, margin=3):
    """Erode a mask: an image is interpolated near edges, its label is not."""
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    return cv2.erode(mask.astype(np.uint8), kernel, borderValue=0) > 0


def inside_one_value(label, margin=3):
    """Return where a neighbourhood has one label only."""
    return np.any([inside(label == v, margin) for v in np.unique(label)], 0)


@pytest.mark.parametrize('name', CONFIGS)
def test_train_pipeline_gives_crop_size(
        root, tmp_path, name):
    cfg = dataset_config(root, name)
    pipeline = pipeline_of(cfg)
    for size in ((90, 120), (120, 60)):
        image, label = run(pipeline, coded_sample(tmp_path, *size))
        assert image.shape == (*cfg.crop_size, 3)
        assert label.shape == tuple(cfg.crop_size)


@pytest.mark.parametrize('name', CONFIGS)
def test_train_pipeline_rejects_ids_out_of_range(root, tmp_path, name):
    count, pipeline = CONFIGS[name], pipeline_of(dataset_config(root, name))
    image = write(tmp_path / 'i.png', np.zeros((90, 120, 3), np.uint8))
    for value, accepted in ((count - 1, True), (count, False), (255, True)):
        path = write(tmp_path / 'l.png', np.full((90, 120), value, np.uint8))
        sample = sample_of(img_path=image, seg_map_path=path)
        if accepted:
            assert set(np.unique(run(pipeline, sample)[1])) <= {value, 255}
        else:
            with pytest.raises(InputError, match=f'holds the values {value};'):
                pipeline(sample)


@pytest.mark.parametrize('name', PADDED)
def test_train_pipeline_padding_is_black_and_ignored(root, tmp_path, name):
    cfg = dataset_config(root, name)
    pipeline = pipeline_of(cfg, RandomResize=dict(ratio_range=(.5, .5)),
                           RandomRotate=dict(prob=0.))
    label = np.full((90, 120), 3, np.uint8)
    sample = sample_of(
        img_path=write(tmp_path / 'i.png', np.full((90, 120, 3), 200, np.uint8)),
        seg_map_path=write(tmp_path / 'l.png', label))
    image, label = run(pipeline, sample)
    width = cfg.get('base_size', 480) // 2
    height = width * 3 // 4
    assert set(np.unique(label)) == {3, 255}
    assert (label[:height, :width] == 3).all()  # padded to the right and bottom
    assert (label == 3).sum() == height * width
    assert (image[label == 255] == 0).all()
    assert (image[label == 3] == 200).all()


@pytest.mark.parametrize('name', ROTATED)
def test_train_pipeline_rotation_corners_are_black_and_ignored(root, tmp_path, name):
    cfg = dataset_config(root, name)
    pipeline = pipeline_of(cfg, RandomResize=dict(ratio_range=(2., 2.)),
                           RandomCrop=dict(crop_size=(10**4, 10**4)))
    sample = sample_of(
        img_path=write(tmp_path / 'i.png', np.full((90, 120, 3), 200, np.uint8)),
        seg_map_path=write(tmp_path / 'l.png', np.full((90, 120), 3, np.uint8)))
    ignored = []
    for _ in range(3):
        image, label = run(pipeline, sample)
        assert set(np.unique(label)) == {3, 255}
        corners = label[[0, 0, -1, -1], [0, -1, 0, -1]]
        ignored.append((label == 255).mean())
        assert (corners == 255).sum() >= 2
        assert (image[inside(label == 255)] == 0).all()
        assert (image[inside(label == 3)] == 200).all()
    assert len(set(ignored)) == 3  # another angle each time


@pytest.mark.parametrize('name', PADDED + ENLARGED)
def test_train_pipeline_transforms_image_and_label_alike(root, tmp_path, name):
    pipeline = pipeline_of(
        dataset_config(root, name),
        ColorJitter=dict(brightness=0., contrast=0., saturation=0.))
    sample = coded_sample(tmp_path, 390, 520)  # enlarged to twice that at most
    for _ in range(3):
        image, label = run(pipeline, sample)
        interior = inside_one_value(label)
        assert interior.mean() > 0.1
        expected = np.where(label == 255, 0, label * STEP + STEP)
        difference = np.abs(image[..., 0] - expected)
        assert difference[interior].max() <= 1


@pytest.mark.parametrize('name', ['camvid_encnet', 'camvid_stdc'])
def test_train_pipeline_flips_half_of_the_samples(root, tmp_path, name):
    image = np.zeros((90, 120, 3), np.uint8)
    image[:, :60] = 200  # bright on the left, where the label is 5
    label = np.where(image[..., 0] > 0, 5, 0).astype(np.uint8)
    sample = sample_of(img_path=write(tmp_path / 'i.png', image),
                       seg_map_path=write(tmp_path / 'l.png', label))
    pipeline = Compose([
        t for t in pipeline_of(dataset_config(root, name)).transforms
        if type(t).__name__ in ('LoadSegImage', 'LoadSegAnnotations',
                                'RandomFlip', 'PackSegInputs')])
    flipped = 0
    for _ in range(60):
        image, label = run(pipeline, sample)
        assert np.array_equal(image[..., 0] == 200, label == 5)
        flipped += bool(label[0, -1] == 5)
    assert 15 <= flipped <= 45


def scales_of(root, tmp_path, name, draws):
    """Draw scale factors of a pipeline's random resize; the image is 120 wide."""
    steps = [t for t in pipeline_of(dataset_config(root, name)).transforms
             if type(t).__name__ in ('LoadSegImage', 'LoadSegAnnotations',
                                     'RandomResize', 'RandomChoice')]
    sample, scales = coded_sample(tmp_path), []
    for _ in range(draws):
        results = Compose(steps)(dict(sample, seg_fields=[]))
        height, width = results['img'].shape[:2]
        assert abs(height - width * 3 / 4) <= 1
        assert results['gt_seg_map'].shape == (height, width)
        scales.append(width / 120)
    return scales


@pytest.mark.parametrize('name', ['ade20k', 'camvid_encnet', 'cityscapes_encnet'])
def test_encnet_pipeline_scales_longer_side_by_half_to_twice(
        root, tmp_path, name):
    base = dataset_config(root, name).get('base_size', 480)
    longer = 120 * np.array(scales_of(root, tmp_path, name, draws=60)) / base
    assert .5 <= longer.min() < .6 and 1.9 < longer.max() <= 2
    assert longer.mean() == pytest.approx(1.25, abs=.15)


@pytest.mark.parametrize('name, eighths', [
    ('camvid_stdc', range(4, 17)), ('cityscapes_stdc', range(1, 13))])
def test_stdc_pipeline_scales_are_eighths(
        root, tmp_path, name, eighths):
    drawn = set(scales_of(root, tmp_path, name, draws=200))
    assert drawn == {i / 8 for i in eighths}


def test_cityscapes_stdc_color_jitter_is_the_authors(root):
    steps = pipeline_of(dataset_config(root, 'cityscapes_stdc')).transforms
    jitters = [step.strengths for step in steps if isinstance(step, ColorJitter)]
    assert jitters == [(.5, .5, .5)]


# --- The configs' training batches -------------------------------------------


def build_loader(cfg, root, count):
    """Build the config's training loader over tiny images, in this process."""
    for kind in ('images', 'labels'):
        (root / kind / 'train').mkdir(parents=True)
    for i in range(count):
        image = np.full((8, 8, 3), 10 * i, np.uint8)
        Image.fromarray(image).save(root / f'images/train/{i}.jpg')
        label = np.full((8, 8), i, np.uint8)
        Image.fromarray(label).save(root / f'labels/train/{i}.png')
    settings = {**cfg.train_dataloader, 'num_workers': 0,
                'persistent_workers': False, 'batch_size': 2}
    settings['dataset'] = dict(
        type='CamVidDataset', data_root=str(root),
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        pipeline=[dict(type='LoadSegImage'), dict(type='LoadSegAnnotations'),
                  dict(type='PackSegInputs')])
    return Runner.build_dataloader(settings, seed=0)


def ids_of(batch):
    """Return the numbers of the images in a batch, which are their labels."""
    return [int(s.gt_sem_seg.data.unique()) for s in batch['data_samples']]


def test_train_loader_shuffles_and_drops_last_batch(root, tmp_path):
    loader = build_loader(dataset_config(root, 'ade20k'), tmp_path, count=7)
    epochs = []
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        batches = [ids_of(batch) for batch in loader]
        assert [len(batch) for batch in batches] == [2, 2, 2]
        seen = sum(batches, [])
        assert len(set(seen)) == 6
        epochs.append(seen)
    assert all(seen != sorted(seen) for seen in epochs)
    assert len({tuple(seen) for seen in epochs}) == 4


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_shuffle_and_drop_last_batch(root, name):
    cfg = dataset_config(root, name)
    assert cfg.train_dataloader.drop_last is True
    assert cfg.train_dataloader.sampler.shuffle is True
    assert cfg.val_dataloader.sampler.shuffle is False


def test_infinite_loader_passes_over_the_set_repeatedly(root, tmp_path):
    loader = iter(build_loader(dataset_config(root, 'camvid_stdc'), tmp_path, 6))
    rounds = [sum((ids_of(next(loader)) for _ in range(3)), []) for _ in range(4)]
    assert all(sorted(seen) == list(range(6)) for seen in rounds)
    assert len({tuple(seen) for seen in rounds}) > 1
