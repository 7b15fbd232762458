"""MMSEG_ENCSTDC_ENCODE chooses who computes; setup.py builds who can."""
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest
import setuptools
import torch
from torch.utils import cpp_extension

from mmseg_encstdc.ops import encode, paths


@pytest.fixture
def inputs():
    return torch.randn(2, 9, 5), torch.randn(3, 5), -torch.rand(3)


@pytest.mark.parametrize('asked', [None, 'auto', 'torch'])
def test_on_a_cpu_the_products_compute(monkeypatch, inputs, asked):
    if asked is None:
        monkeypatch.delenv(paths.VARIABLE, raising=False)
    else:
        monkeypatch.setenv(paths.VARIABLE, asked)
    assert paths.chosen(*inputs[:2]) == 'torch'
    assert encode(*inputs).shape == (2, 3, 5)


def test_asking_for_cuda_on_a_cpu_says_what_is_in_the_way(monkeypatch, inputs):
    monkeypatch.setenv(paths.VARIABLE, 'cuda')
    with pytest.raises(RuntimeError, match='ENCODE=cuda, but x is on cpu'):
        encode(*inputs)


def test_an_unknown_path_is_named_with_those_there_are(monkeypatch, inputs):
    monkeypatch.setenv(paths.VARIABLE, 'triton')
    with pytest.raises(ValueError, match='triton.*auto, torch, cuda'):
        encode(*inputs)


@pytest.fixture
def on_cuda():
    """What a tensor on a GPU says of itself."""
    return SimpleNamespace(is_cuda=True, dtype=torch.float32, shape=(2, 5, 9),
                           device=torch.device('cuda', 0), numel=lambda: 90)


class Compiled:
    """The compiled module, with or without room for a shape."""

    def __init__(self, room):
        self.room = room

    def supports(self, x, codewords):
        return self.room


@pytest.mark.parametrize('asked, capability, room, expected', [
    ('auto', (8, 0), True, 'cuda'),
    ('auto', (9, 0), False, 'torch'),
    ('auto', (7, 5), True, 'torch'),
    ('cuda', (7, 5), True, 'cuda'),
    ('torch', (9, 0), True, 'torch'),
])
def test_on_a_gpu_the_kernels_compute_where_they_pay(
        monkeypatch, on_cuda, asked, capability, room, expected):
    monkeypatch.setenv(paths.VARIABLE, asked)
    monkeypatch.setattr(paths, 'extension', lambda: Compiled(room))
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda _: capability)
    assert paths.chosen(on_cuda, torch.zeros(3, 5)) == expected


def test_asking_for_cuda_without_room_names_the_shapes(monkeypatch, on_cuda):
    monkeypatch.setenv(paths.VARIABLE, 'cuda')
    monkeypatch.setattr(paths, 'extension', lambda: Compiled(False))
    with pytest.raises(RuntimeError, match=r'\(2, 5, 9\).*\(3, 5\)'):
        paths.chosen(on_cuda, torch.zeros(3, 5))


def test_a_gpu_without_kernels_is_told_once_how_to_build_them(
        monkeypatch, on_cuda, capsys):
    from mmengine import logging
    said = []
    monkeypatch.setattr(logging, 'print_log',
                        lambda message, **_: said.append(message))
    monkeypatch.setattr(paths, 'extension', lambda: None)
    paths._tell_how_to_build.cache_clear()
    for _ in range(3):
        assert paths.chosen(on_cuda, torch.zeros(3, 5)) == 'torch'
    assert len(said) == 1
    assert 'pip install --no-build-isolation .' in said[0]


def test_without_cuda_the_package_is_pure_python(root):
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


def test_with_cuda_and_nvcc_every_source_is_built(monkeypatch, root, tmp_path):
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'nvcc').touch()
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(cpp_extension, 'CUDA_HOME', str(tmp_path))
    module, = arguments_of_setup(monkeypatch, root)['ext_modules']
    assert module.name == paths.EXTENSION
    expected = {f'ops/{file.name}' for pattern in ('*.cu', '*.cpp')
                for file in (root / 'ops').glob(pattern)}
    assert set(module.sources) == expected and len(expected) == 5


@pytest.mark.parametrize('cuda, home', [(None, '/x'), ('13.0', None)])
def test_without_either_nothing_is_built(monkeypatch, root, cuda, home, capsys):
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    monkeypatch.setattr(cpp_extension, 'CUDA_HOME', home)
    assert 'ext_modules' not in arguments_of_setup(monkeypatch, root)
    assert 'no CUDA kernels, because' in capsys.readouterr().out
