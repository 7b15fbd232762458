"""The checks before training look at which classes occur in the labels."""
import copy
import logging

import numpy as np
import pytest
from input_errors import error_of
from mmengine.config import Config
from PIL import Image

from mmseg_encstdc import compat
from mmseg_encstdc.engine import check_config, check_data
from mmseg_encstdc.engine.checks import check_layout
from mmseg_encstdc.engine.checks import data as data_checks

TRAIN = ['train_dataloader']
BOTH = ['train_dataloader', 'val_dataloader']
STOCK = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]


def write(root, labels, split='train'):
    """Write labels, each row of ids twice, with grey images."""
    for kind in ('images', 'labels'):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    for i, label in enumerate(labels):
        label = np.array(label, np.uint8).repeat(2, 0)
        Image.fromarray(label).save(root / f'labels/{split}/{i}.png')
        Image.fromarray(np.full((*label.shape, 3), 90, np.uint8)).save(
            root / f'images/{split}/{i}.jpg')


def loader_of(root, split='train', classes=('ground', 'sky'), **dataset):
    return dict(batch_size=1, dataset=dict(
        type='BaseSegDataset', data_root=str(root), metainfo=dict(classes=classes),
        data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}'),
        **{'pipeline': copy.deepcopy(STOCK), **dataset}))


def config_of(root, **dataset):
    """Return the parts of a config that the checks read."""
    return Config(dict(model=dict(decode_head=dict()),
                       train_dataloader=loader_of(root, **dataset),
                       val_dataloader=loader_of(root, 'val', **dataset)))


def layout_of(root):
    """Return a config with what check_layout reads of a test."""
    return Config(dict(
        model=dict(decode_head=dict()), test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='ConfusionMetric'),
        test_dataloader=dict(sampler=dict(type='DefaultSampler'), **loader_of(root))))


@pytest.fixture
def warnings(monkeypatch):
    """Return the list of warnings that the checks print."""
    lines = []
    monkeypatch.setattr(compat, 'warn', lines.append)
    return lines


# --- Classes that do not occur -----------------------------------------------


def test_check_data_accepts_labels_with_every_class(tmp_path, warnings):
    write(tmp_path, [[[0, 0], [0, 0]], [[1, 1], [255, 1]]])
    assert check_data(config_of(tmp_path), TRAIN) is None
    assert warnings == []


def test_check_data_names_values_of_binary_masks_and_the_map(tmp_path, warnings):
    write(tmp_path, [[[0, 0, 0, 255]], [[0, 0, 0, 0]]])
    config = config_of(tmp_path)
    message = error_of(check_data, config, TRAIN)
    assert message == (
        'train_dataloader: class 1 (sky) occurs in none of the 2 labels, whose files '
        'hold the values 0 (87.50 %), 255 (12.50 %); if these are the classes in this '
        'order, load the labels with LoadSegAnnotations(values={0: 0, 255: 1}); if it '
        "is meant so, set data_checks = dict(missing_classes='warn')")
    config.train_dataloader.dataset.pipeline[1] = dict(
        type='LoadSegAnnotations', values={0: 0, 255: 1})
    assert check_data(config, TRAIN) is None and warnings == []


def test_check_data_offers_map_that_replaces_reduce_zero_label(tmp_path):
    write(tmp_path, [[[0, 255]]])
    config = config_of(tmp_path, reduce_zero_label=True)
    message = error_of(check_data, config, TRAIN)
    assert '100.00 % of all pixels are ignored in the 1 labels' in message
    assert 'values={0: 0, 255: 1}), and set reduce_zero_label=False' in message
    dataset = config.train_dataloader.dataset
    dataset.pipeline[1] = dict(type='LoadSegAnnotations', values={0: 0, 255: 1})
    dataset.reduce_zero_label = False
    assert check_data(config, TRAIN) is None


def test_check_data_names_reduce_zero_label_that_drops_a_class(tmp_path):
    write(tmp_path, [[[0, 1, 1]]])
    config = config_of(tmp_path, reduce_zero_label=True)
    message = error_of(check_data, config, TRAIN)
    assert 'class 1 (sky) occurs in none' in message
    assert 'set reduce_zero_label=False in the data set' in message
    config.train_dataloader.dataset.reduce_zero_label = False
    assert check_data(config, TRAIN) is None


def test_check_data_counts_after_the_label_map(tmp_path):
    write(tmp_path, [[[3, 3, 4]]])  # road and pavement of CamVid
    config = config_of(tmp_path, classes=('road', 'car'))
    config.train_dataloader.dataset.type = 'CamVidDataset'
    message = error_of(check_data, config, TRAIN)
    assert 'class 1 (car) occurs in none' in message
    assert 'the values 3 (66.67 %), 4 (33.33 %)' in message
    config.train_dataloader.dataset.metainfo.classes = ('road', 'pavement')
    assert check_data(config, TRAIN) is None


def test_check_data_recognizes_masks_of_another_number_of_classes(tmp_path):
    write(tmp_path, [[[0, 0, 255]]])
    config = config_of(tmp_path, classes=tuple('abc'))
    message = error_of(check_data, config, TRAIN)
    assert '255 is ignored; if these are masks of one object' in message
    dataset = config.train_dataloader.dataset
    dataset.pipeline[1] = eval('dict(type="LoadSegAnnotations", ' + message.split(
        'LoadSegAnnotations(')[1].split(')')[0] + ')')
    dataset.metainfo.classes = ('ground', 'object')
    config.model.decode_head.num_classes = 2
    assert check_data(config, TRAIN) is None


def test_check_data_lists_five_missing_classes(tmp_path):
    write(tmp_path, [[[0, 0, 1]]])
    message = error_of(check_data, config_of(tmp_path, classes=tuple('abcdefghi')),
                       TRAIN)
    assert 'classes 2 (c), 3 (d), 4 (e), 5 (f), 6 (g) and 2 others occur in' in message
    assert 'add labels with what is missing' in message


def test_check_data_rejects_labels_that_are_nearly_all_ignored(tmp_path):
    label = np.full((20, 20), 255)
    label[0, :3] = [0, 1, 1]
    write(tmp_path, [label])
    assert '99.25 % of all pixels are ignored in the 1 labels' in error_of(
        check_data, config_of(tmp_path), TRAIN)
    label[0, 3] = 1  # 99 percent
    write(tmp_path, [label])
    assert check_data(config_of(tmp_path), TRAIN) is None


def test_check_data_counts_ignore_index_of_the_head(tmp_path):
    write(tmp_path, [[[0, 1, 7]]])
    config = config_of(tmp_path)
    assert 'holds the values 7' in error_of(check_data, config, TRAIN)
    config.model.decode_head.ignore_index = 7
    assert check_data(config, TRAIN) is None


def test_check_data_adds_the_data_sets_of_a_loader(tmp_path, warnings):
    write(tmp_path / 'a', [[[0, 0]]])
    write(tmp_path / 'b', [[[1, 1]]])
    config = config_of(tmp_path / 'a')
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[
        loader_of(tmp_path / name)['dataset'] for name in 'ab'])
    assert check_data(config, TRAIN) is None and warnings == []


# --- Where it is a warning ---------------------------------------------------


def test_check_data_warns_of_missing_classes_where_told(tmp_path, warnings):
    write(tmp_path, [[[0, 255]]])
    config = config_of(tmp_path)
    config.data_checks = dict(missing_classes='warn')  # the remedy of the message
    assert check_config(config, TRAIN) is None
    assert check_data(config, TRAIN) is None
    line, = warnings
    assert line.startswith('train_dataloader: class 1 (sky) occurs in none')


def test_check_data_warns_of_missing_classes_in_validation(tmp_path, warnings):
    write(tmp_path, [[[0, 1]]])
    write(tmp_path, [[[0, 0]]], 'val')
    assert check_data(config_of(tmp_path), BOTH) is None
    line, = warnings
    assert line.startswith('val_dataloader: class 1 (sky) occurs in none of the 1 lab')


def test_check_data_warns_where_only_a_sample_was_read(tmp_path, warnings, monkeypatch):
    monkeypatch.setattr(data_checks, 'SAMPLE', 2)
    write(tmp_path, [[[0, 0]], [[0, 0]], [[1, 1]], [[0, 0]]])
    assert check_data(config_of(tmp_path), TRAIN) is None  # reads 0 and 2
    assert warnings == []
    write(tmp_path, [[[0, 0]], [[1, 1]], [[0, 0]], [[0, 0]]])
    assert check_data(config_of(tmp_path), TRAIN) is None
    line, = warnings
    assert 'occurs in none of the 2 of 4 labels that were read' in line


def test_check_data_rejects_ignored_pixels_in_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(data_checks, 'SAMPLE', 2)
    write(tmp_path, [[[255, 255]]] * 4)
    assert '100.00 % of all pixels are ignored' in error_of(
        check_data, config_of(tmp_path), TRAIN)


def test_warn_prints_a_warning_to_mmengines_log(monkeypatch):
    printed = []
    monkeypatch.setattr('mmengine.logging.print_log', lambda message, **how: (
        printed.append((message, how))))
    compat.warn('class 1 is missing')
    assert printed == [
        ('class 1 is missing', dict(logger='current', level=logging.WARNING))]


@pytest.mark.parametrize('value', ['ignore', None, True, 'Warn'])
def test_check_config_rejects_other_levels(tmp_path, value):
    config = config_of(tmp_path)
    config.data_checks = dict(missing_classes=value)
    message = error_of(check_config, config, TRAIN)
    assert f'data_checks.missing_classes is {value!r}' in message
    assert "data_checks = dict(missing_classes='error') or 'warn'" in message


def test_check_config_rejects_other_keys_of_data_checks(tmp_path):
    config = config_of(tmp_path)
    config.data_checks = dict(missing_class='warn')
    assert 'data_checks has no key missing_class;' in error_of(
        check_config, config, TRAIN)
    config.data_checks = 'warn'
    assert "data_checks is 'warn'" in error_of(check_config, config, TRAIN)


# --- Relatives ---------------------------------------------------------------


def test_check_data_rejects_classes_in_another_order(tmp_path):
    write(tmp_path, [[[0, 1]]])
    write(tmp_path, [[[0, 1]]], 'val')
    config = config_of(tmp_path)
    config.val_dataloader.dataset.metainfo.classes = ('sky', 'ground')
    assert error_of(check_data, config, BOTH) == (
        'class sky is 1 in train_dataloader and 0 in val_dataloader; give both the '
        'same metainfo.classes in one order')
    config.val_dataloader.dataset.metainfo.classes = ('earth', 'heaven')
    assert check_data(config, BOTH) is None  # only the names differ


def test_check_data_warns_of_images_in_training_and_validation(tmp_path, warnings):
    write(tmp_path, [[[0, 1]], [[1, 0]]])
    config = config_of(tmp_path)
    config.val_dataloader = config.train_dataloader
    assert check_data(config, BOTH) is None
    assert warnings == [
        f'val_dataloader has 2 images of train_dataloader, the first {tmp_path}/images/'
        'train/0.jpg; results on them say nothing about new images']


def test_check_data_rejects_and_warns_of_stray_files(tmp_path, warnings):
    write(tmp_path, [[[0, 1]], [[0, 1]]])
    images = tmp_path / 'images/train'
    (images / '._0.jpg').touch()
    check_data(config_of(tmp_path), TRAIN)
    assert warnings == [f'BaseSegDataset: not used: 1 hidden file, the first {images}/'
                        '._0.jpg']
    (images / '1.jpg').rename(images / '1.JPG')
    assert 'would be left out: 1 labelled image' in error_of(
        check_data, config_of(tmp_path), TRAIN)


def test_check_data_offers_suffix_where_all_differ_in_case(tmp_path):
    write(tmp_path, [[[0, 1]]])
    (tmp_path / 'images/train/0.jpg').rename(tmp_path / 'images/train/0.JPG')
    config = config_of(tmp_path)
    assert "set img_suffix='.JPG' in" in error_of(check_data, config, TRAIN)
    config.train_dataloader.dataset.img_suffix = '.JPG'
    assert check_data(config, TRAIN) is None


def test_check_data_needs_no_labels_that_the_pipeline_does_not_load(tmp_path):
    write(tmp_path, [[[0, 1]]])
    (tmp_path / 'labels/train/0.png').unlink()
    config = config_of(tmp_path)
    assert '0.png is missing' in error_of(check_data, config, TRAIN)
    del config.train_dataloader.dataset.pipeline[1]
    assert check_data(config, TRAIN) is None


def test_check_data_names_data_set_that_cannot_be_built(tmp_path):
    write(tmp_path, [[[0, 1]]])
    message = error_of(check_data, config_of(tmp_path, colour='red'), TRAIN)
    assert message.startswith('train_dataloader.dataset.colour: BaseSegDataset has no '
                              'argument colour')


# --- Metainfo ----------------------------------------------------------------


def test_check_data_reads_classes_of_a_file(tmp_path):
    write(tmp_path, [[[0, 1]]])
    names = tmp_path / 'names.txt'
    config = config_of(tmp_path)
    config.train_dataloader.dataset.metainfo = dict(classes=str(names))
    message = error_of(check_data, config, TRAIN)
    assert message.startswith(
        f'train_dataloader.dataset.metainfo.classes: {names} does not exist')
    names.write_text('ground\nsky\n\n')
    assert 'name 3 of 3 is empty' in error_of(check_data, config, TRAIN)
    names.write_text('ground\nsky\n')
    assert check_data(config, TRAIN) is None


def test_check_data_rejects_repeated_class(tmp_path):
    write(tmp_path, [[[0, 1, 2]]])
    config = config_of(tmp_path)
    config.train_dataloader.dataset.metainfo.classes = ['sky', 'ground', 'sky']
    assert 'metainfo.classes names sky more than once' in error_of(
        check_data, config, TRAIN)


@pytest.mark.parametrize('color', ['red', [1, 2], [1, 2, 256], ['1', '2', '3']])
def test_check_data_rejects_colour(tmp_path, color):
    write(tmp_path, [[[0, 1]]])
    config = config_of(tmp_path)
    config.train_dataloader.dataset.metainfo.palette = [[1, 2, 3], color]
    message = error_of(check_data, config, TRAIN)
    assert f'metainfo.palette has the colour {color!r}' in message
    config.train_dataloader.dataset.metainfo.palette[1] = [128, 64, 128]
    assert check_data(config, TRAIN) is None


@pytest.mark.parametrize('name, value, remedy', [
    ('label_map', {0: 1, 1: 0}, 'LoadSegAnnotations(values=...)'),
    ('reduce_zero_label', True, 'set reduce_zero_label of the data set itself')])
def test_check_data_rejects_metainfo_that_is_not_read(tmp_path, name, value, remedy):
    write(tmp_path, [[[0, 1, 2]]])
    config = config_of(tmp_path)
    dataset = config.train_dataloader.dataset
    dataset.metainfo[name] = value
    message = error_of(check_data, config, TRAIN)
    assert f'metainfo.{name} is {value}, which BaseSegDataset does not read' in message
    assert remedy in message
    del dataset.metainfo[name]
    if name == 'label_map':
        dataset.pipeline[1] = dict(type='LoadSegAnnotations', values={0: 1, 1: 0, 2: 0})
    else:
        dataset.reduce_zero_label = True
    assert check_data(config, TRAIN) is None


# --- Folders and lists -------------------------------------------------------


def test_check_layout_rejects_folder_of_none_beside_data_root(tmp_path):
    write(tmp_path, [[[0, 1]]])
    config = layout_of(tmp_path)
    dataset = config.test_dataloader.dataset
    dataset.data_prefix.seg_map_path = None
    message = error_of(check_layout, config, ['test'])
    assert 'test_dataloader.dataset.data_prefix.seg_map_path is None' in message
    assert 'leave it out' in message
    del dataset.data_prefix['seg_map_path']
    assert check_layout(config, ['test']) is None
    assert check_data(config, ['test_dataloader']) is None


def test_check_layout_rejects_two_suffixes_of_labelled_images(tmp_path):
    write(tmp_path, [[[0, 1]], [[1, 0]]])
    (tmp_path / 'images/train/1.jpg').rename(tmp_path / 'images/train/1.JPG')
    config = layout_of(tmp_path)
    dataset = config.test_dataloader.dataset
    dataset.img_suffix = ('.jpg', '.JPG')
    assert 'rename the images' in error_of(check_layout, config, ['test'])
    del dataset.data_prefix['seg_map_path']
    assert check_layout(config, ['test']) is None
    assert check_data(config, ['test_dataloader']) is None


def test_check_data_names_text_file_that_is_not_utf_8(tmp_path):
    write(tmp_path, [[[0, 1]]])
    (tmp_path / 'list.txt').write_bytes('bäume\n'.encode('latin-1'))
    message = error_of(check_data, config_of(tmp_path, ann_file='list.txt'), TRAIN)
    assert message.endswith('save ann_file, or the file of classes, as UTF-8')


def test_check_config_leaves_addresses_to_their_backend(tmp_path):
    write(tmp_path, [[[0, 1]]])
    config = config_of('s3://bucket/street')
    assert check_config(config, TRAIN) is None
    config = config_of(tmp_path / 'none', backend_args=dict(backend='petrel'))
    assert check_config(config, TRAIN) is None
    assert 'none does not exist' in error_of(
        check_config, config_of(tmp_path / 'none'), TRAIN)


def test_check_data_names_links_in_a_circle(tmp_path):
    write(tmp_path, [[[0, 1]]])
    (tmp_path / 'images/train/again').symlink_to(tmp_path / 'images/train')
    message = error_of(check_data, config_of(tmp_path), TRAIN)
    assert 'symbolic links' in message and 'images/train/again' in message
    assert 'remove the link that leads to a folder above it' in message
    (tmp_path / 'images/train/again').unlink()
    assert check_data(config_of(tmp_path), TRAIN) is None
