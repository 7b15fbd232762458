"""Predict and export pictures of every kind, with networks that take them."""
import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmseg_encstdc.apis import load, predict, read_image
from mmseg_encstdc.apis.exporting import Graph
from mmseg_encstdc.datasets.image_formats import turn
from mmseg_encstdc.errors import InputError

SIZE = (24, 32)


def network(root, bands=3, norm=None, channels=None, **load_arguments):
    """Return LocalNet with random weights, and with the loader of a kind of picture."""
    cfg = Config.fromfile(root / 'configs/local_scenes.py')
    if bands != 3 or load_arguments:
        cfg.test_dataloader.dataset.pipeline[0] = dict(
            type='LoadSegImage', bands=bands, **load_arguments)
    norm = norm or bands
    cfg.model.data_preprocessor.update(
        mean=[40. + 10 * i for i in range(norm)], std=[30. + i for i in range(norm)])
    cfg.model.backbone.in_channels = channels or norm
    return load(config=cfg, weights=False, device='cpu')


def draw(*shape, dtype=np.uint8, high=256):
    return np.random.randint(0, high, shape).astype(dtype)


def scores_of(model, image, **kwargs):
    return predict(model, image, with_scores=True, **kwargs)[1]


def expected_scores(model, image):
    """Compute the scores of (H, W, C) from the network itself."""
    preprocessor = model.data_preprocessor
    x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    x = (x - preprocessor.mean) / preprocessor.std
    with torch.no_grad():
        return model.encode_decode(x, [dict(img_shape=SIZE)])[0].numpy()


def refusal(call, *args, **kwargs):
    """Return the message of the InputError that a call raises, one line."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('bands', [1, 2, 4, 5, 12])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_predict_of_bands_computes_their_values(root, tmp_path, bands, dtype):
    tifffile = pytest.importorskip('tifffile')
    model = network(root, bands, dtype=dtype)
    image = draw(*SIZE, bands, dtype=dtype, high=255)
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, image.squeeze(), photometric='minisblack',
                     **dict(planarconfig='contig') if bands > 1 else {})
    expected = expected_scores(model, image)
    assert np.ptp(expected) > 0
    for source in (path, image, *[image[..., 0]] * (bands == 1)):
        assert np.allclose(scores_of(model, source), expected, atol=1e-4)


def test_predict_of_16_bit_colours_is_bgr(root, tmp_path):
    model = network(root, dtype='uint16')
    image = draw(*SIZE, 3, dtype=np.uint16, high=2**16)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    expected = expected_scores(model, image[..., ::-1])  # mean and std are RGB
    sources = [tmp_path / 'a.png', image, image.astype(np.float32)]
    for source in sources:
        assert np.allclose(scores_of(model, source), expected, rtol=1e-4, atol=1e-2)
    rgb = np.ascontiguousarray(image[..., ::-1])
    assert np.allclose(scores_of(model, rgb, rgb=True), expected, rtol=1e-4, atol=1e-2)


def test_predict_of_one_band_by_a_network_of_three(root):
    model = network(root, bands=1, norm=3)
    image = draw(*SIZE)
    expected = expected_scores(model, np.stack([image] * 3, 2))
    assert np.allclose(scores_of(model, image), expected, atol=1e-4)


@pytest.mark.parametrize('image, words', [
    (draw(*SIZE, 3), 'shape (24, 32, 3)'), (draw(*SIZE), 'shape (24, 32)'),
    (draw(*SIZE, 4, 1), 'shape (24, 32, 4, 1)'), (draw(7), 'shape (7,)'),
    (draw(0, 5, 4), 'shape (0, 5, 4)'),
    (draw(*SIZE, 4), 'is of uint8'), (draw(*SIZE, 4).astype(np.int64), 'is of int64'),
    (np.full((*SIZE, 4), np.nan, np.float32), 'NaN')])
def test_predict_rejects_arrays_that_do_not_fit_the_config(root, image, words):
    message = refusal(predict, network(root, 4, dtype='uint16'), image)
    assert words in message
    if 'NaN' not in words:
        assert 'accepted is an array (H, W, 4) of uint16, or float32' in message


def test_predict_says_that_one_band_may_lack_its_axis(root):
    message = refusal(predict, network(root, 1), draw(*SIZE, 3))
    assert 'accepted is an array (H, W) or (H, W, 1) of uint8' in message


def test_predict_rejects_rgb_of_other_bands(root):
    message = refusal(predict, network(root, 4), draw(*SIZE, 4), rgb=True)
    assert 'rgb=True' in message and 'leave it out' in message


@pytest.mark.parametrize('arguments, image, words', [
    ({}, draw(*SIZE, dtype=np.uint16), "bands=1, dtype='uint16'"),
    (dict(bands=4), draw(*SIZE, 3), '3 bands of uint8'),
    (dict(bands=1), draw(*SIZE, dtype=np.uint16), '1 band of uint16')])
def test_predict_rejects_files_that_do_not_fit_the_config(
        root, tmp_path, arguments, image, words):
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    message = refusal(predict, network(root, **arguments), tmp_path / 'a.png')
    assert str(tmp_path / 'a.png') in message and words in message


def test_predict_of_stock_loader_rejects_16_bits(root, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), draw(*SIZE, dtype=np.uint16))
    model = network(root)
    first = model.cfg.test_dataloader.dataset.pipeline[0]
    assert first.type == 'LoadImageFromFile'
    assert 'uint16' in refusal(predict, model, tmp_path / 'a.png')
    first.color_type = 'unchanged'
    model.cfg.model.backbone.in_channels = 1
    assert 'channels differ' in refusal(
        load, config=model.cfg, weights=False, device='cpu')
    model.cfg.model.data_preprocessor.update(mean=[9.], std=[9.])
    model = load(config=model.cfg, weights=False, device='cpu')
    assert predict(model, tmp_path / 'a.png').shape == SIZE


@pytest.mark.parametrize('orientation', [3, 6, 8])
@pytest.mark.parametrize('bands', [1, 3])
def test_predict_of_photograph_gives_labels_of_turned_pixels(
        root, tmp_path, orientation, bands):
    model = network(root, bands)
    stored = draw(*SIZE, 3) if bands == 3 else draw(*SIZE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / 'a.png', exif=exif)
    turned = turn(stored, orientation)
    labels = predict(model, tmp_path / 'a.png')
    assert np.array_equal(labels, predict(model, turned, rgb=bands == 3))
    picture = read_image(tmp_path / 'a.png', model)
    assert picture.shape[:2] == labels.shape == turned.shape[:2]
    assert np.array_equal(picture[..., ::-1], turned if bands == 3 else
                          np.stack([turned] * 3, 2))


@pytest.mark.parametrize('bands', [1, 2, 4, 5])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_read_image_shows_other_bands_as_colours(root, tmp_path, bands, dtype):
    tifffile = pytest.importorskip('tifffile')
    image = draw(*SIZE, bands, dtype=dtype)
    image[0, 0], image[0, 1] = 0, 255
    tifffile.imwrite(tmp_path / 'a.tif', image.squeeze() * np.array(
        257 if dtype == 'uint16' else 1, dtype), photometric='minisblack',
        **dict(planarconfig='contig') if bands > 1 else {})
    picture = read_image(tmp_path / 'a.tif', network(root, bands, dtype=dtype))
    shown = [2, 1, 0] if bands > 2 else [0, 0, 0]
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - image[..., shown]).max() <= 1


@pytest.mark.parametrize('bands, dtype', [
    (1, 'uint8'), (3, 'uint16'), (4, 'uint8'), (5, 'float32')])
def test_graph_with_preprocess_computes_what_predict_does(root, bands, dtype):
    model = network(root, bands, dtype=dtype)
    image = draw(*SIZE, bands, dtype=dtype)
    x = torch.from_numpy(image if dtype == 'uint8' else image.astype(np.float32))[None]
    with torch.no_grad():
        logits = Graph(model, preprocess=True)(x)[0].numpy()
    assert np.allclose(logits, scores_of(model, image), atol=1e-4)


@pytest.mark.parametrize('protocol', ['encnet', 'stdc'])
def test_chip_pads_an_image_that_is_not_normalised(root, protocol):
    model = network(root)
    model.cfg.model.test_cfg = dict(
        mode='chip', protocol=protocol, crop_size=48, stride_rate=.5)
    for key in ('mean', 'std'):
        model.cfg.model.data_preprocessor.pop(key)
    model = load(config=model.cfg, weights=False, device='cpu')
    assert predict(model, draw(*SIZE, 3)).shape == SIZE
