"""ImageFolderDataset: classes, samples and errors."""
import os

import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_encstdc.datasets import ImageFolderDataset
from mmseg_encstdc.errors import InputError


def write(path, value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    form = 'PNG' if path.suffix.lower() == '.png' else 'JPEG'
    Image.fromarray(np.full((5, 6, 3), value, np.uint8)).save(path, form)


@pytest.fixture
def folder(tmp_path):
    """Write three classes, hidden files and files that are no images."""
    for name in ('train/n02/b.JPEG', 'train/n02/a.jpg', 'train/n01/z.PNG',
                 'train/n10/c.jpeg'):
        write(tmp_path / name)
    write(tmp_path / 'train/.cache/x.jpg')
    write(tmp_path / 'train/n01/._z.png')
    (tmp_path / 'train/n01/notes.txt').write_text('no image')
    (tmp_path / 'train/list.txt').write_text('no folder')
    return tmp_path


def build(folder, split='train', **kwargs):
    return DATASETS.build(dict(
        type='ImageFolderDataset', data_root=str(folder),
        data_prefix=dict(img_path=split), **kwargs))


def samples_of(dataset):
    """Return (class folder / name, label) of each sample."""
    return [('/'.join(sample['img_path'].split(os.sep)[-2:]), sample['gt_label'])
            for sample in map(dataset.get_data_info, range(len(dataset)))]


def error_of(folder, **kwargs):
    with pytest.raises(InputError) as caught:
        build(folder, **kwargs)
    message = str(caught.value)
    assert '\n' not in message
    return message


def test_image_folder_classes_are_folders_by_name(folder):
    dataset = build(folder)
    assert type(dataset) is ImageFolderDataset
    assert dataset.metainfo['classes'] == ('n01', 'n02', 'n10')
    assert samples_of(dataset) == [('n01/z.PNG', 0), ('n02/a.jpg', 1),
                                ('n02/b.JPEG', 1), ('n10/c.jpeg', 2)]


@pytest.mark.parametrize('as_file', [False, True])
def test_image_folder_classes_select_and_order_folders(folder, as_file):
    classes = ['n10', 'n01']
    if as_file:
        (folder / 'classes.txt').write_text('n10\nn01\n')
        classes = str(folder / 'classes.txt')
    dataset = build(folder, metainfo=dict(classes=classes))
    assert dataset.metainfo['classes'] == ('n10', 'n01')
    assert samples_of(dataset) == [('n10/c.jpeg', 0), ('n01/z.PNG', 1)]


def test_image_folder_follows_links(folder, tmp_path_factory):
    linked = tmp_path_factory.mktemp('linked')
    (linked / 'val').mkdir()
    (linked / 'val' / 'n01').symlink_to(folder / 'train' / 'n01')
    (linked / 'val' / 'n02').mkdir()
    (linked / 'val' / 'n02' / 'a.jpg').symlink_to(folder / 'train/n02/a.jpg')
    assert samples_of(build(linked, 'val')) == [('n01/z.PNG', 0), ('n02/a.jpg', 1)]


def test_image_folder_names_missing_split_and_layout(folder):
    message = error_of(folder, split='val')
    assert f'{folder}/val does not exist' in message
    assert '{train,val}/SYNSET/NAME.JPEG' in message


def test_image_folder_rejects_split_without_folders(tmp_path):
    write(tmp_path / 'train' / 'a.jpg')
    assert f'{tmp_path}/train holds no folders' in error_of(tmp_path)


def test_image_folder_rejects_class_without_images(folder):
    (folder / 'train/n10/c.jpeg').unlink()
    message = error_of(folder)
    assert f'class folder {folder}/train/n10 holds no image' in message
    assert '.jpeg, .jpg, .png' in message


def test_image_folder_names_missing_class_folder(folder):
    message = error_of(folder, metainfo=dict(classes=['n01', 'n03']))
    assert f'class folder {folder}/train/n03 does not exist' in message
    assert 'metainfo.classes' in message


def test_image_folder_rejects_repeated_class(folder):
    message = error_of(folder, metainfo=dict(classes=['n01', 'n02', 'n01']))
    assert 'metainfo.classes names n01 more than once' in message


def test_image_folder_names_missing_class_file(folder):
    message = error_of(folder, metainfo=dict(classes='no.txt'))
    assert 'metainfo.classes: no.txt does not exist' in message


def test_image_folder_names_unreadable_image(folder):
    path = folder / 'train/n01/z.PNG'
    path.write_bytes(b'no image')
    dataset = build(folder, pipeline=[dict(type='LoadSegImage'),
                                      dict(type='PackClassInputs')])
    assert dataset[1]['inputs'].shape == (3, 5, 6)
    with pytest.raises(InputError, match=f'image {path} cannot be read'):
        dataset[0]
