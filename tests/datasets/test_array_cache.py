"""Test the loaders that keep decoded images and labels."""
import os

import numpy as np
import pytest
from PIL import Image

from mmseg_encstdc.datasets import LoadSegAnnotations, LoadSegImage
from mmseg_encstdc.errors import InputError


@pytest.fixture
def sample(tmp_path):
    """Return the results of a data set for an image and its label."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(
        tmp_path / 'a.jpg')
    Image.fromarray(rng.integers(0, 3, (20, 30), np.uint8)).save(tmp_path / 'a.png')
    return dict(img_path=str(tmp_path / 'a.jpg'), seg_map_path=str(tmp_path / 'a.png'),
                label_map=None, reduce_zero_label=False, seg_fields=[])


def load(sample, cache=None, values=None):
    """Load the sample, from the cache if there is one."""
    results = {**sample, 'seg_fields': []}
    for loader in (LoadSegImage(cache_dir=cache),
                   LoadSegAnnotations(values=values, cache_dir=cache)):
        results = loader(results)
    return results


def same(first, second):
    return first.keys() == second.keys() and all(
        np.array_equal(value, second[key]) for key, value in first.items())


def files(folder):
    return [path for path in folder.rglob('*') if path.is_file()]


def test_cached_results_equal_loaded_ones(sample, tmp_path, monkeypatch):
    plain, cache = load(sample), str(tmp_path / 'cache')
    assert same(load(sample, cache), plain) and len(files(tmp_path / 'cache')) == 2
    monkeypatch.setattr(LoadSegImage, '_load', None)
    monkeypatch.setattr(LoadSegAnnotations, '_load_checked', None)
    again = load(sample, cache)
    assert same(again, plain)
    again['img'][:] = 0  # stays in this process
    assert same(load(sample, cache), plain)


def test_cache_is_not_used_for_changed_files_and_settings(sample, tmp_path):
    cache = str(tmp_path / 'cache')
    load(sample, cache)
    mapped = load(sample, cache, {0: 2, 1: 1, 2: 0})
    assert np.array_equal(mapped['gt_seg_map'], 2 - load(sample)['gt_seg_map'])
    by_set = {**sample, 'label_map': {0: 255}}
    assert same(load(by_set, cache), load(by_set))
    Image.fromarray(np.full((20, 30, 3), 9, np.uint8)).save(sample['img_path'])
    os.utime(sample['img_path'], (1, 1))
    assert same(load(sample, cache), load(sample))


def test_damaged_cache_is_written_again(sample, tmp_path):
    cache = tmp_path / 'cache'
    load(sample, str(cache))
    for path in files(cache):
        path.write_bytes(path.read_bytes()[:200])
    assert same(load(sample, str(cache)), load(sample))
    assert all(path.stat().st_size > 200 for path in files(cache))


def test_cache_names_folder_that_cannot_be_written(sample, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='cannot be written.*cache_dir'):
        load(sample, str(tmp_path / 'file' / 'cache'))


def test_cache_keeps_messages_of_loaders(sample, tmp_path):
    (tmp_path / 'a.png').write_bytes(b'no image')
    with pytest.raises(InputError, match='a.png cannot be read'):
        load(sample, str(tmp_path / 'cache'))
