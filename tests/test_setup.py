"""Test when setup.py builds the CUDA kernels, and for which GPUs."""
import os
import runpy
import shutil
import subprocess
import sys
import tarfile

import pytest
import setuptools
import torch
from torch.utils import cpp_extension


def test_setup_without_cuda_is_pure_python(root):
    if torch.version.cuda is not None:
        pytest.skip('this PyTorch is built with CUDA')
    done = subprocess.run(
        [sys.executable, 'setup.py', '--version'], cwd=root,
        capture_output=True, text=True)
    assert 'no CUDA kernels, because this PyTorch is built without CUDA' in (
        done.stdout)


def arguments_of_setup(monkeypatch, root):
    given = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **words: given.update(words))
    monkeypatch.chdir(root)
    runpy.run_path(str(root / 'setup.py'))
    return given


@pytest.fixture
def with_nvcc(monkeypatch, tmp_path):
    """Pretend a CUDA build of PyTorch without a GPU; return a function that writes
    an nvcc script and returns its toolkit folder."""
    home = tmp_path / 'home'
    (home / 'bin').mkdir(parents=True)
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setattr(cpp_extension, 'CUDA_HOME', str(home))
    monkeypatch.setenv(ARCH_LIST, '')

    def write(text):
        (home / 'bin' / 'nvcc').write_text(f'#!/bin/sh\n{text}\n')
        (home / 'bin' / 'nvcc').chmod(0o755)
        return home

    write('')
    return write


ARCH_LIST = 'TORCH_CUDA_ARCH_LIST'


def test_setup_builds_every_source(monkeypatch, root, with_nvcc):
    module, = arguments_of_setup(monkeypatch, root)['ext_modules']
    assert module.name == 'mmseg_encstdc._cuda'
    expected = {file.relative_to(root).as_posix() for pattern in ('*.cu', '*.cpp')
                for file in (root / 'ops').rglob(pattern)}
    assert set(module.sources) == expected and len(expected) == 5


def test_setup_rebuilds_after_edited_header(
        monkeypatch, root, with_nvcc):
    module, = arguments_of_setup(monkeypatch, root)['ext_modules']
    assert set(module.depends) == {
        file.relative_to(root).as_posix() for file in (root / 'ops').rglob('*')
        if file.suffix in ('.h', '.cuh')}
    assert 'ops/encode/walk.cuh' in module.depends


@pytest.mark.parametrize('cuda, nvcc, expected', [
    ('13.0', '13.0', '8.0;8.6;8.9;9.0;10.0+PTX'),
    ('12.8', '12.8', '8.0;8.6;8.9;9.0;10.0+PTX'),
    ('12.4', '12.8', '8.0;8.6;8.9;9.0+PTX'),
    ('12.8', '12.4', '8.0;8.6;8.9;9.0+PTX'),
    ('12.8', 'unknown', '8.0;8.6;8.9;9.0;10.0+PTX'),
    ('11.8', '11.4', '8.0;8.6+PTX'),
])
def test_setup_without_gpu_chooses_architectures_of_cuda(
        monkeypatch, root, with_nvcc, capsys, cuda, nvcc, expected):
    with_nvcc(f'echo "Cuda compilation tools, release {nvcc}, V{nvcc}.61"')
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    arguments_of_setup(monkeypatch, root)
    assert os.environ[ARCH_LIST] == expected
    assert f'{ARCH_LIST}={expected}' in capsys.readouterr().out


@pytest.mark.parametrize('asked, gpus', [('9.0', 0), ('9.0', 1), ('', 1)])
def test_setup_keeps_architectures_of_user_or_gpus(
        monkeypatch, root, with_nvcc, asked, gpus):
    monkeypatch.setenv(ARCH_LIST, asked)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    arguments_of_setup(monkeypatch, root)
    assert os.environ[ARCH_LIST] == asked


def test_setup_finds_toolkit_behind_wrapper(
        monkeypatch, root, with_nvcc, tmp_path, capsys):
    top = tmp_path / 'toolkit'
    (top / 'bin').mkdir(parents=True)
    home = with_nvcc(f"echo '#$ TOP={top}/bin/..' >&2")
    arguments_of_setup(monkeypatch, root)
    assert cpp_extension.CUDA_HOME == str(home)  # no headers there either
    (top / 'include').mkdir()
    (top / 'include' / 'cuda_runtime.h').touch()
    module, = arguments_of_setup(monkeypatch, root)['ext_modules']
    assert cpp_extension.CUDA_HOME == str(top)
    assert str(top / 'include') in module.include_dirs
    assert f'its nvcc names {top}, which is taken' in capsys.readouterr().out


def test_setup_keeps_toolkit_with_headers(
        monkeypatch, root, with_nvcc, tmp_path):
    home = with_nvcc(f"echo '#$ TOP={tmp_path}' >&2")
    for folder in (home, tmp_path):
        (folder / 'include').mkdir()
        (folder / 'include' / 'cuda_runtime.h').touch()
    arguments_of_setup(monkeypatch, root)
    assert cpp_extension.CUDA_HOME == str(home)


def test_setup_without_sources_builds_nothing(
        monkeypatch, root, with_nvcc, tmp_path, capsys):
    elsewhere = tmp_path / 'elsewhere'
    (elsewhere / 'mmseg_encstdc').mkdir(parents=True)
    for name in ('setup.py', 'mmseg_encstdc/__init__.py'):
        (elsewhere / name).write_text((root / name).read_text())
    assert 'ext_modules' not in arguments_of_setup(monkeypatch, elsewhere)
    assert 'because the kernels are not in this folder' in (
        capsys.readouterr().out)


def test_sdist_has_all_sources(root, tmp_path):
    tree = tmp_path / 'tree'
    skipped = shutil.ignore_patterns('.*', '*.so', 'data', 'work_dirs', 'build',
                                     '*.egg-info', '__pycache__')
    shutil.copytree(root, tree, ignore=skipped)
    subprocess.run(
        [sys.executable, 'setup.py', '-q', 'sdist', '--formats', 'gztar'],
        cwd=tree, check=True, capture_output=True)
    archive, = (tree / 'dist').iterdir()
    with tarfile.open(archive) as opened:
        names = {name.split('/', 1)[-1] for name in opened.getnames()}
    for folder in ('ops', 'configs', 'tools', 'dev', 'tests', 'benchmarks',
                   'requirements', 'mmseg_encstdc'):
        expected = {file.relative_to(tree).as_posix()
                    for file in (tree / folder).rglob('*')}
        assert expected and expected <= names
    assert 'MANIFEST.in' in names


@pytest.mark.parametrize('cuda, home', [(None, '/x'), ('13.0', None)])
def test_setup_without_cuda_or_nvcc_builds_nothing(
        monkeypatch, root, cuda, home, capsys):
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    monkeypatch.setattr(cpp_extension, 'CUDA_HOME', home)
    assert 'ext_modules' not in arguments_of_setup(monkeypatch, root)
    assert 'no CUDA kernels, because' in capsys.readouterr().out
