"""Files that a data set leaves out are said in one line a kind."""
from mmseg.datasets import BaseSegDataset

from mmseg_encstdc.compat.data import build_without_pipeline
from mmseg_encstdc.datasets import ImageFolderDataset
from mmseg_encstdc.datasets.stray_files import find_strays


def strays_of(root, names, **arguments):
    """Write empty files and return what is said about them."""
    for folder in ('img', 'seg'):
        (root / folder).mkdir(exist_ok=True)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    dataset = build_without_pipeline(dict(
        type=BaseSegDataset, data_root=str(root),
        data_prefix=dict(img_path='img', seg_map_path='seg'), **arguments))
    return find_strays(dataset, dataset.data_list)


def test_strays_are_silent_about_pairs(tmp_path):
    pairs = ['img/a.jpg', 'seg/a.png', 'img/sub/b.jpg', 'seg/sub/b.png', 'img/list.txt',
             'seg/a_colour.gif']
    assert strays_of(tmp_path, pairs) == ([], [])


def test_strays_count_labels_without_image(tmp_path):
    names = ['img/a.jpg', 'seg/a.png', 'seg/b.png', 'seg/c.png']
    assert strays_of(tmp_path, names) == ([], [
        f'not used: 2 labels in {tmp_path}/seg, the first b.png; no image fits'])


def test_strays_know_suffixes_longer_than_an_extension(tmp_path):
    names = ['img/a_left.png', 'seg/a_ids.png', 'seg/a_colour.png', 'seg/b_ids.png']
    strays = strays_of(tmp_path, names, img_suffix='_left.png',
                       seg_map_suffix='_ids.png')
    assert strays == ([], [
        f'not used: 1 label in {tmp_path}/seg, the first b_ids.png; no image fits'])


def test_strays_are_errors_where_pairs_are_lost_by_case(tmp_path):
    names = ['img/a.jpg', 'seg/a.png', 'img/b.JPG', 'seg/b.png', 'img/c.JPG']
    errors, warnings = strays_of(tmp_path, names)
    assert errors == [
        f"would be left out: 1 labelled image in {tmp_path}/img, the first b.JPG; "
        "img_suffix is '.jpg'; rename them to end in .jpg"]
    assert warnings == [f"not used: 1 image in {tmp_path}/img, the first c.JPG; "
                        "img_suffix is '.jpg'"]
    (tmp_path / 'img/b.JPG').rename(tmp_path / 'img/b.jpg')  # the remedy
    assert strays_of(tmp_path, []).errors == []


def test_strays_offer_the_suffix_that_all_images_have(tmp_path):
    names = ['img/a.JPG', 'seg/a.png', 'img/b.JPG', 'seg/b.png']
    error, = strays_of(tmp_path, names).errors
    assert error.endswith("set img_suffix='.JPG' in the data set")
    assert strays_of(tmp_path, names, img_suffix='.JPG') == ([], [])


def test_strays_name_labels_of_another_case(tmp_path):
    names = ['img/a.jpg', 'seg/a.PNG', 'img/b.jpg', 'seg/b.png']
    error, = strays_of(tmp_path, names).errors
    assert error == (
        f"would not be found: 1 label in {tmp_path}/seg, the first a.PNG; "
        "seg_map_suffix is '.png'; rename them to end in .png")


def test_strays_offer_the_suffix_that_all_labels_have(tmp_path):
    names = ['img/a.jpg', 'seg/a.PNG']
    error, = strays_of(tmp_path, names).errors
    assert error.endswith("set seg_map_suffix='.PNG' in the data set")
    assert strays_of(tmp_path, names, seg_map_suffix='.PNG') == ([], [])


def test_strays_warn_of_labelled_images_of_another_format(tmp_path):
    names = ['img/a.jpg', 'seg/a.png', 'img/b.tif', 'seg/b.png', 'img/a.webp']
    assert strays_of(tmp_path, names) == ([], [
        f"not used: 1 labelled image in {tmp_path}/img, the first b.tif; img_suffix is "
        "'.jpg'"])


def test_strays_warn_of_hidden_files(tmp_path):
    names = ['img/a.jpg', 'seg/a.png', 'img/._a.jpg', 'seg/._a.png', 'img/.DS_Store']
    assert strays_of(tmp_path, names) == ([], [
        f'not used: 2 hidden files, the first {tmp_path}/img/._a.jpg'])


def test_strays_are_errors_in_hidden_folders_without_labels(tmp_path):
    copy = 'img/.ipynb_checkpoints/a-checkpoint.jpg'
    names = ['img/a.jpg', 'seg/a.png', copy]
    error, = strays_of(tmp_path, names).errors
    assert error == (
        f'without a label: 1 image of hidden folders in {tmp_path}/img, the first '
        '.ipynb_checkpoints/a-checkpoint.jpg; remove the hidden folder')
    names.append('seg/.ipynb_checkpoints/a-checkpoint.png')
    errors, (warning, ) = strays_of(tmp_path, names)
    assert errors == []
    assert warning.startswith('used like the others: 1 image of hidden folders in ')


def test_strays_ignore_what_a_list_or_indices_leave_out(tmp_path):
    names = ['img/a.jpg', 'seg/a.png', 'img/b.jpg', 'seg/b.png', 'seg/c.png']
    (tmp_path / 'list.txt').write_text('a\n')
    assert strays_of(tmp_path, names, ann_file='list.txt') == ([], [])
    assert strays_of(tmp_path, names, indices=1) == ([], [])


def test_strays_accept_images_and_labels_in_one_folder(tmp_path):
    names = ['img/a.jpg', 'img/a.png', 'img/b.jpg', 'img/b.png']
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    dataset = build_without_pipeline(dict(
        type=BaseSegDataset, data_prefix=dict(
            img_path=f'{tmp_path}/img', seg_map_path=f'{tmp_path}/img')))
    assert len(dataset) == 2
    assert find_strays(dataset, dataset.data_list) == ([], [])


def test_strays_accept_images_without_labels(tmp_path):
    for name in ('a.jpg', 'b.jpg'):
        (tmp_path / name).touch()
    dataset = build_without_pipeline(dict(
        type=BaseSegDataset, data_prefix=dict(img_path=str(tmp_path))))
    assert find_strays(dataset, dataset.data_list) == ([], [])


def test_strays_of_class_folders_name_images_not_used(tmp_path):
    for name in ('train/cat/a.jpg', 'train/cat/b.webp', 'train/cat/more/c.jpg',
                 'train/cat/.d.jpg', 'train/cat/note.txt', 'train/e.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    dataset = build_without_pipeline(dict(
        type=ImageFolderDataset, data_root=str(tmp_path),
        data_prefix=dict(img_path='train')))
    assert find_strays(dataset, dataset.data_list) == ([], [
        f'not used: 2 images in {tmp_path}/train, the first cat/b.webp; accepted are '
        '.jpeg, .jpg and .png directly in the folder of a class'])
