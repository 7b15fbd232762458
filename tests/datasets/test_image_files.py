"""Pictures of every kind are read as they are, or rejected in one line."""
import importlib.util
import io
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from input_errors import error_of
from mmcv.transforms import LoadImageFromFile
from PIL import Image, ImageOps

from mmseg_encstdc.datasets import (
    ColorJitter,
    LoadSegAnnotations,
    LoadSegImage,
    image_files,
)
from mmseg_encstdc.datasets.image_files import check_pixels
from mmseg_encstdc.datasets.image_formats import orientation_of, pixel_format, turn
from mmseg_encstdc.datasets.pair_reader import PairReader
from mmseg_encstdc.errors import InputError

ORIENTATIONS = range(1, 9)
LOADERS = [dict(type='LoadSegImage'), dict(type='LoadSegAnnotations')]


def pair_reader(pipeline):
    return PairReader(SimpleNamespace(metainfo={}, reduce_zero_label=False), pipeline)


def image_size_reader(pipeline):
    """Return a function that reads the (height, width) as the checks do."""
    return lambda path: pair_reader(pipeline).read(dict(img_path=str(path))).size


@pytest.fixture
def tifffile():
    return pytest.importorskip('tifffile')


def draw(*shape, dtype=np.uint8, high=256):
    """Draw random pixels."""
    return np.random.randint(0, high, shape).astype(dtype)


def save(path, image, **kwargs):
    """Write an image by Pillow and return its name."""
    Image.fromarray(image).save(path, **kwargs)
    return str(path)


def write_tiff(tifffile, path, image, **kwargs):
    """Write a TIFF of bands, the last axis, and return its name."""
    kwargs = {'photometric': 'minisblack', 'planarconfig': 'contig', **kwargs}
    if image.ndim == 2 or kwargs['planarconfig'] is None:
        del kwargs['planarconfig']
    tifffile.imwrite(path, image, **kwargs)
    return str(path)


def load(path, **kwargs):
    return LoadSegImage(**kwargs)(dict(img_path=str(path)))['img']


def arguments_in(message):
    """Return the arguments of LoadSegImage that a message recommends."""
    text = message.split('LoadSegImage(')[1].split(')')[0]
    return eval(f'dict({text})')  # noqa: S307


# --- The default reads what mmcv reads ---------------------------------------


@pytest.mark.parametrize('mode', ['L', 'RGB', 'P', '1', 'RGBA', 'LA', 'CMYK'])
@pytest.mark.parametrize('suffix', ['png', 'jpg', 'bmp', 'tif', 'webp'])
def test_load_default_equals_mmcv(tmp_path, mode, suffix):
    path = tmp_path / f'a.{suffix}'
    picture = Image.fromarray(draw(12, 16, 3)).convert(mode)
    if 'A' in mode:
        picture.putalpha(255 if suffix == 'tif' else 77)
    try:
        picture.save(path)
    except OSError:
        pytest.skip(f'{suffix} has no mode {mode}')
    expected = LoadImageFromFile()(dict(img_path=str(path)))
    found = LoadSegImage()(dict(img_path=str(path)))
    assert found['img'].dtype == np.uint8
    assert np.array_equal(found.pop('img'), expected.pop('img'))
    assert found == expected


# --- Depth -------------------------------------------------------------------

DEEP = {
    'png': lambda path, image: cv2.imwrite(str(path), image),
    'tif': lambda path, image: cv2.imwrite(
        str(path), image, [cv2.IMWRITE_TIFF_COMPRESSION, 1]),
}


@pytest.mark.parametrize('suffix', DEEP)
@pytest.mark.parametrize('bands', [1, 3])
def test_load_16_bits_keeps_every_value(tmp_path, suffix, bands):
    image = draw(40, 52, bands, dtype=np.uint16, high=2**16).squeeze()
    path = tmp_path / f'a.{suffix}'
    DEEP[suffix](path, image)
    found = load(path, bands=bands, dtype='uint16')
    assert found.dtype == np.float32
    assert np.array_equal(found, image)  # three bands are BGR, as OpenCV wrote them


@pytest.mark.parametrize('suffix', DEEP)
@pytest.mark.parametrize('bands', [1, 3])
def test_load_default_rejects_16_bits_and_its_remedy_works(tmp_path, suffix, bands):
    image = draw(6, 8, bands, dtype=np.uint16, high=2**16).squeeze()
    path = tmp_path / f'a.{suffix}'
    DEEP[suffix](path, image)
    message = error_of(load, path)
    assert str(path) in message and 'uint16' in message
    assert np.array_equal(load(path, **arguments_in(message)), image)


@pytest.mark.parametrize('dtype', ['int16', 'uint32', 'int32', 'float32', 'float64'])
def test_load_default_rejects_other_types_and_its_remedy_works(
        tmp_path, tifffile, dtype):
    image = (draw(6, 8, high=2**15) / 8 - 9).astype(dtype)
    path = write_tiff(tifffile, tmp_path / 'a.tif', image)
    message = error_of(load, path)
    assert dtype in message
    found = load(path, **arguments_in(message))
    assert found.dtype == np.float32
    assert np.array_equal(found, image.astype(np.float32))


def test_load_rejects_mixture_of_8_and_16_bits(tmp_path):
    path = save(tmp_path / 'a.png', draw(6, 8))
    message = error_of(load, path, bands=1, dtype='uint16')
    assert f'{path} has 1 band of uint8' in message
    assert 'set to 1 band of uint16' in message


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_load_rejects_nan_and_infinity(tmp_path, tifffile, value):
    image = np.array([[1, value]], np.float32)
    path = write_tiff(tifffile, tmp_path / 'a.tif', image)
    assert 'NaN or infinity' in error_of(load, path, bands=1, dtype='float32')


# --- Bands -------------------------------------------------------------------


@pytest.mark.parametrize('bands', [2, 4, 5, 7, 12])
@pytest.mark.parametrize('planar', ['contig', 'separate', None])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_load_tiff_bands(tmp_path, tifffile, bands, planar, dtype):
    image = draw(6, 8, bands, dtype=dtype)
    stored = image if planar == 'contig' else image.transpose(2, 0, 1)
    path = write_tiff(tifffile, tmp_path / 'a.tif', stored, planarconfig=planar)
    found = load(path, bands=bands, dtype=dtype)
    assert np.array_equal(found, image)
    assert found.dtype == (np.uint8 if dtype == 'uint8' else np.float32)


@pytest.mark.parametrize('bands', [2, 4, 5])
@pytest.mark.parametrize('planar', ['contig', 'separate', None])
def test_load_default_rejects_tiff_bands_and_its_remedy_works(
        tmp_path, tifffile, bands, planar):
    image = draw(6, 8, bands)
    stored = image if planar == 'contig' else image.transpose(2, 0, 1)
    path = write_tiff(tifffile, tmp_path / 'a.tif', stored, planarconfig=planar)
    message = error_of(load, path)
    assert path in message and f'{bands} ' in message
    assert np.array_equal(load(path, **arguments_in(message)), image)


def test_load_three_tiff_bands_are_bgr(tmp_path, tifffile):
    image = draw(6, 8, 3, dtype=np.uint16)
    for photometric in ('minisblack', 'rgb'):
        path = write_tiff(tifffile, tmp_path / 'a.tif', image, photometric=photometric)
        assert np.array_equal(load(path, bands=3, dtype='uint16'), image[..., ::-1])


def test_load_rgba_is_in_the_order_of_the_file(tmp_path, tifffile):
    image = draw(6, 8, 4)
    png = save(tmp_path / 'a.png', image)
    tiff = write_tiff(tifffile, tmp_path / 'a.tif', image, photometric='rgb',
                      extrasamples=['unassalpha'])
    for path in (png, tiff):
        assert np.array_equal(load(path, bands=4), image)


def test_load_default_rejects_tiff_whose_alpha_changes_colours(tmp_path, tifffile):
    image = draw(6, 8, 4)
    path = write_tiff(tifffile, tmp_path / 'a.tif', image, photometric='rgb',
                      extrasamples=['unassalpha'])
    message = error_of(load, path)
    assert 'alpha' in message
    assert np.array_equal(load(path, **arguments_in(message)), image)


def test_load_one_band(tmp_path):
    image = draw(6, 8)
    assert np.array_equal(load(save(tmp_path / 'a.png', image), bands=1), image)
    grey_alpha = draw(6, 8, 2)
    path = save(tmp_path / 'b.png', grey_alpha)
    assert np.array_equal(load(path, bands=2), grey_alpha)
    assert f'{path} has 2 bands' in error_of(load, path, bands=1)


def test_load_grey_tiff_whose_white_is_zero(tmp_path, tifffile):
    image = draw(6, 8)
    path = write_tiff(tifffile, tmp_path / 'a.tif', image, photometric='miniswhite')
    assert np.array_equal(load(path)[..., 0], 255 - image)  # as OpenCV reads it
    assert np.array_equal(load(path, bands=1), 255 - image)


def test_load_bands_rejects_palette_of_tiff(tmp_path):
    path = save(tmp_path / 'a.tif', draw(6, 8, 3))
    Image.open(path).convert('P').save(tmp_path / 'p.tif')
    message = error_of(load, tmp_path / 'p.tif', bands=1)
    assert 'PhotometricInterpretation 3' in message
    assert load(tmp_path / 'p.tif').shape == (6, 8, 3)  # the remedy


def test_load_without_tifffile_says_what_to_install(tmp_path, tifffile, monkeypatch):
    path = write_tiff(tifffile, tmp_path / 'a.tif', draw(6, 8, 5))
    find = importlib.util.find_spec
    monkeypatch.setattr(image_files.importlib.util, 'find_spec',
                        lambda name: None if name == 'tifffile' else find(name))
    assert 'pip install tifffile' in error_of(load, path, bands=5)


def test_load_compressed_tiff_says_what_to_install(tmp_path, tifffile, monkeypatch):
    path = write_tiff(tifffile, tmp_path / 'a.tif', draw(6, 8, 5), compression='zlib')
    assert load(path, bands=5).shape == (6, 8, 5)

    def fail(*args, **kwargs):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")
    monkeypatch.setattr(tifffile, 'TiffFile', fail)
    assert 'pip install imagecodecs' in error_of(load, path, bands=5)


@pytest.mark.parametrize('kwargs, words', [
    (dict(bands=0), 'bands'), (dict(bands='4'), 'bands'), (dict(bands=True), 'bands'),
    (dict(dtype='uint12'), 'dtype'),
    (dict(bands=4, color_type='unchanged'), 'color_type'),
    (dict(dtype='uint16', imdecode_backend='pillow'), 'imdecode_backend')])
def test_load_rejects_arguments(kwargs, words):
    assert words in error_of(LoadSegImage, **kwargs)


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_load_raises_only_input_error_for_damaged_bytes(tmp_path, tifffile, suffix):
    path = tmp_path / f'a.{suffix}'
    if suffix == 'tif':
        write_tiff(tifffile, path, draw(4, 5, 5))
    else:
        save(path, draw(4, 5, 4))
    intact, kwargs = path.read_bytes(), dict(bands=5 if suffix == 'tif' else 4)
    found = 0
    for i in range(len(intact)):
        path.write_bytes(bytes([*intact[:i], intact[i] ^ 0xff, *intact[i + 1:]]))
        for arguments in (kwargs, {}):
            try:
                load(path, **arguments)
            except InputError as error:
                assert str(path) in str(error) and '\n' not in str(error)
                found += 1
    assert found


# --- Orientation -------------------------------------------------------------


def write_turned(path, image, orientation):
    """Write an image with an EXIF orientation and return its name."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = dict(lossless=True) if str(path).endswith('webp') else {}
    return save(path, image, exif=exif, **lossless)


@pytest.mark.parametrize('orientation', ORIENTATIONS)
def test_turn_equals_pillow(tmp_path, orientation):
    image = draw(4, 6, 3)
    path = write_turned(tmp_path / 'a.png', image, orientation)
    with Image.open(path) as file:
        expected = np.asarray(ImageOps.exif_transpose(file))
    with open(path, 'rb') as file:
        assert orientation_of(file.read()) == orientation
    assert np.array_equal(turn(image, orientation), expected)
    assert np.array_equal(turn(image[..., 0], orientation), expected[..., 0])


@pytest.mark.parametrize('suffix', ['png', 'tif', 'webp'])
@pytest.mark.parametrize('orientation', ORIENTATIONS)
def test_load_bands_turns_as_default_does(tmp_path, tifffile, suffix, orientation):
    image = draw(8, 12)
    path = write_turned(tmp_path / f'a.{suffix}', np.stack([image] * 3, 2), orientation)
    colours = load(path)
    assert np.array_equal(colours[..., 0], turn(image, orientation))
    if suffix != 'webp':  # which has no grey images
        path = write_turned(tmp_path / f'b.{suffix}', image, orientation)
        assert np.array_equal(load(path, bands=1), turn(image, orientation))


@pytest.mark.parametrize('kind', ['orientation 6', 'alpha'])
def test_load_of_tiff_with_bands_and_orientation(tmp_path, tifffile, kind):
    image = draw(6, 8, 5)
    path = write_tiff(tifffile, tmp_path / 'a.tif', image,
                      extratags=[(274, 'H', 1, 6, True)])
    assert np.array_equal(load(path, bands=5), turn(image, 6))


def labelled(tmp_path, orientation, label, size=(6, 8), loader=LoadSegImage):
    """Return image and label as loaded; the image's first band is the stored label."""
    stored = draw(*size)
    image = write_turned(tmp_path / 'a.png', np.stack([stored] * 3, 2), orientation)
    path = save(tmp_path / 'l.png', turn(stored, orientation) if label == 'turned'
                else stored)
    sample = dict(img_path=image, seg_map_path=path, label_map=None,
                  reduce_zero_label=False, seg_fields=[])
    pair_reader(LOADERS).read(sample)
    sample = LoadSegAnnotations()(loader()(sample))
    return sample['img'][..., 0], sample['gt_seg_map']


@pytest.mark.parametrize('orientation', ORIENTATIONS)
@pytest.mark.parametrize('loader', [LoadSegImage, LoadImageFromFile])
def test_label_agrees_with_turned_photograph(tmp_path, orientation, loader):
    image, label = labelled(tmp_path, orientation, 'turned', loader=loader)
    assert np.array_equal(image, label)


@pytest.mark.parametrize('orientation', [5, 6, 7, 8])
def test_label_of_stored_pixels_is_turned_like_its_image(tmp_path, orientation):
    image, label = labelled(tmp_path, orientation, 'stored')
    assert np.array_equal(image, label)


@pytest.mark.parametrize('orientation, size', [(6, (8, 8)), (3, (6, 8))])
def test_label_of_ambiguous_sides_is_taken_as_viewers_show(
        tmp_path, orientation, size):
    image, label = labelled(tmp_path, orientation, 'turned', size)
    assert np.array_equal(image, label)
    image, label = labelled(tmp_path, orientation, 'stored', size)
    assert np.array_equal(image, turn(label, orientation))


def test_label_of_other_size_is_rejected_despite_orientation(tmp_path):
    image = write_turned(tmp_path / 'a.png', draw(6, 8, 3), 6)
    label = save(tmp_path / 'l.png', draw(6, 9))
    sample = dict(img_path=image, seg_map_path=label, label_map=None,
                  reduce_zero_label=False, seg_fields=[])
    assert 'is 9 x 6 but its image' in error_of(pair_reader(LOADERS).read, sample)
    assert 'is 9 x 6 but its image' in error_of(
        LoadSegAnnotations(), LoadSegImage()(sample))


def test_check_reads_sides_as_the_loader_does(tmp_path):
    path = write_turned(tmp_path / 'a.png', draw(6, 8, 3), 6)
    read = {name: image_size_reader([dict(type='LoadImageFromFile', color_type=name)])
            for name in ('color', 'color_ignore_orientation', 'unchanged')}
    assert {name: function(path) for name, function in read.items()} == {
        'color': (8, 6), 'color_ignore_orientation': (6, 8), 'unchanged': (6, 8)}


# --- The checks of a stock loader --------------------------------------------


def test_check_rejects_what_stock_loader_would_spoil(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, draw(6, 8, dtype=np.uint16))
    for loader in (dict(type='LoadImageFromFile'),
                   dict(type='LoadImageFromFile', color_type='grayscale'),
                   dict(type='LoadImageFromFile', imdecode_backend='pillow')):
        assert 'uint16' in error_of(image_size_reader([loader]), path)


def test_check_accepts_what_stock_loader_reads_right(tmp_path, tifffile):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, draw(6, 8, dtype=np.uint16))
    unchanged = dict(type='LoadImageFromFile', color_type='unchanged')
    assert image_size_reader([unchanged])(path) == (6, 8)
    bands = write_tiff(tifffile, tmp_path / 'a.tif', draw(6, 8, 5))
    assert image_size_reader([dict(
        type='LoadImageFromFile', imdecode_backend='tifffile')])(bands) == (6, 8)
    assert image_size_reader([])(save(tmp_path / 'b.png', draw(6, 8, 4))) == (6, 8)


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
@pytest.mark.parametrize('arguments', [{}, dict(bands=1)])
def test_check_rejects_truncated_file(tmp_path, suffix, arguments):
    path = tmp_path / f'a.{suffix}'
    save(path, draw(64, 64))
    path.write_bytes(path.read_bytes()[:-100])
    read_size = image_size_reader([dict(type='LoadSegImage', **arguments)])
    assert f'{path} cannot be read' in error_of(read_size, str(path))


def test_check_rejects_bands_that_unchanged_drops(tmp_path, tifffile):
    path = write_tiff(tifffile, tmp_path / 'a.tif', draw(6, 8, 4))
    unchanged = dict(type='LoadImageFromFile', color_type='unchanged')
    assert '4 bands' in error_of(image_size_reader([unchanged]), path)


def test_pixel_format_of_overviews_is_that_of_the_first_page(tmp_path, tifffile):
    with tifffile.TiffWriter(tmp_path / 'a.tif') as file:
        file.write(draw(16, 16), photometric='minisblack')
        file.write(draw(8, 8), photometric='minisblack', subfiletype=1)
    content = (tmp_path / 'a.tif').read_bytes()
    assert pixel_format(io.BytesIO(content)).pages == 1
    assert load(tmp_path / 'a.tif').shape == (16, 16, 3)


# --- Transforms of colours ---------------------------------------------------


@pytest.mark.parametrize('image', [
    draw(6, 8), draw(6, 8, 4), draw(6, 8, 3).astype(np.float32)])
def test_color_jitter_rejects_other_than_8_bit_colours(image):
    message = error_of(ColorJitter(), dict(img=image))
    assert 'ColorJitter' in message and 'leave it out' in message


# --- The limit of pixels -----------------------------------------------------


def write_png_header(path, width, height):
    """Write a PNG that says its size, with next to no pixels."""
    def chunk(kind, content):
        return (struct.pack('>I', len(content)) + kind + content
                + struct.pack('>I', zlib.crc32(kind + content)))

    size = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', size)
                     + chunk(b'IDAT', zlib.compress(bytes(99))) + chunk(b'IEND', b''))


@pytest.mark.parametrize('arguments', [{}, dict(bands=3, dtype='uint16')])
def test_load_refuses_more_pixels_than_the_limit_by_its_header(tmp_path, arguments):
    write_png_header(tmp_path / 'bomb.png', 30000, 30000)
    message = error_of(load, tmp_path / 'bomb.png', **arguments)
    assert 'bomb.png has 900000000 pixels, above the limit of 536870912' in message
    assert 'MMSEG_ENCSTDC_MAX_PIXELS=900000000' in message


def test_pixel_limit_is_that_of_the_environment(tmp_path, monkeypatch, tifffile):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', Image.MAX_IMAGE_PIXELS)
    path = write_tiff(tifffile, tmp_path / 'a.tif', draw(12, 16, 5))
    monkeypatch.setenv('MMSEG_ENCSTDC_MAX_PIXELS', '191')
    assert 'has 192 pixels, above the limit of 191' in error_of(load, path, bands=5)
    monkeypatch.setenv('MMSEG_ENCSTDC_MAX_PIXELS', '192')
    assert load(path, bands=5).shape == (12, 16, 5)
    write_png_header(tmp_path / 'bomb.png', 30000, 30000)
    monkeypatch.setenv('MMSEG_ENCSTDC_MAX_PIXELS', '900000000')  # the message's remedy
    check_pixels(str(tmp_path / 'bomb.png'))
    monkeypatch.setenv('MMSEG_ENCSTDC_MAX_PIXELS', 'many')
    assert "MMSEG_ENCSTDC_MAX_PIXELS is 'many'" in error_of(load, path, bands=5)
