"""Test inheriting this package's configs in a user's config."""
import os
import subprocess
import sys

import pytest
from mmengine.config import Config
from mmseg.registry import MODELS

import mmseg_encstdc
from mmseg_encstdc.compat.configs import find_own_configs
from mmseg_encstdc.engine import load_config
from mmseg_encstdc.errors import InputError

LOCAL = 'local_scenes.py'


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a user's config and returns its path."""
    def write(*lines):
        path = tmp_path / 'mine.py'
        path.write_text('\n'.join(lines) + '\n')
        return str(path)
    return write


def without_scope(value):
    """Return a config as plain values, without ``_scope_``."""
    if isinstance(value, dict):
        return {key: without_scope(inner) for key, inner in value.items()
                if key != '_scope_'}
    if isinstance(value, (list, tuple)):
        return [without_scope(inner) for inner in value]
    return value


def in_fresh_process(code, path, root):
    """Run code in a new Python outside the checkout; return its output."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, path],
        cwd=os.path.dirname(path), env={'PYTHONPATH': str(root), 'PATH': ''},
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize('name', [
    LOCAL, 'encnet_r50_ade.py', 'stdc1_camvid.py', './encnet_r18_scenes.py'])
def test_load_config_inherits_by_package_name(write, root, name):
    path = write(f"_base_ = 'mmseg_encstdc::{name}'")
    theirs, ours = load_config(path), Config.fromfile(root / 'configs' / name)
    assert without_scope(theirs.to_dict()) == without_scope(ours.to_dict())


def test_inherited_config_can_be_overridden_and_read(write):
    path = write(f"_base_ = ['mmseg_encstdc::{LOCAL}']",
                 'model = dict(decode_head=dict(num_classes=3))',
                 'train_pipeline = _base_.train_pipeline',
                 "work = _base_.data_root + '/mine'")
    config = load_config(path)
    assert config.model.decode_head.num_classes == 3
    assert config.train_pipeline[0].type == 'LoadSegImage'
    assert config.work == 'data/scenes/mine'


def test_inherited_config_builds_under_other_scope(write):
    path = write(f"_base_ = 'mmseg_encstdc::{LOCAL}'",
                 "default_scope = 'mmpretrain'")
    config = load_config(path)
    assert config.model['_scope_'] == 'mmseg'
    assert MODELS.build(config.model).decode_head.num_classes == 14


def test_config_fromfile_inherits_by_package_name(write, root):
    path = write(f"_base_ = 'mmseg_encstdc::{LOCAL}'")
    code = ('import sys, mmseg_encstdc; from mmengine.config import Config; '
            'print(Config.fromfile(sys.argv[1]).model.decode_head.num_classes)')
    assert in_fresh_process(code, path, root)[-1] == '14'


def test_config_file_in_base_without_import(write, root):
    path = write("_base_ = __import__('mmseg_encstdc').config_file(",
                 f"    '{LOCAL}')")
    code = ('import sys; from mmengine.config import Config; '
            "print('mmseg_encstdc' in sys.modules); "
            'print(Config.fromfile(sys.argv[1]).model.decode_head.num_classes)')
    said = in_fresh_process(code, path, root)
    assert (said[0], said[-1]) == ('False', '14')


def test_config_file_lists_configs_for_unknown_name(write):
    path = write("_base_ = 'mmseg_encstdc::encnet_r51_ade.py'")
    with pytest.raises(InputError, match='r51_ade.py.* encnet_r50_ade.py'):
        load_config(path)
    with pytest.raises(FileNotFoundError, match='there are: none'):
        mmseg_encstdc.config_file('nowhere/encnet_r50_ade.py')


def test_find_own_configs_leaves_other_packages(write):
    stock = Config._get_cfg_path
    find_own_configs()  # a second time
    assert Config._get_cfg_path is stock
    with pytest.raises(ValueError, match='specify the package name'):
        Config.fromfile(write("_base_ = 'mmseg::encnet.py'"))


def test_config_folder_prefers_installed_configs(monkeypatch, tmp_path):
    from mmseg_encstdc import config_files
    package = tmp_path / 'mmseg_encstdc'
    monkeypatch.setattr(config_files, 'PACKAGE', package)
    with pytest.raises(FileNotFoundError, match='has no configs'):
        config_files.config_folder()
    for folder in (tmp_path / 'configs', package / '.mim' / 'configs'):
        (folder / '_base_').mkdir(parents=True)
        (folder / '_base_' / 'default_runtime.py').touch()
        assert config_files.config_folder() == folder
