"""Test the files that an install has for mim, and, on demand, mim itself."""
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import setuptools

PARTS = ('benchmarks', 'configs', 'model-index.yml', 'tools')
ASKED = 'MMSEG_ENCSTDC_MIM'


@pytest.fixture
def tree(root, tmp_path):
    """Copy the sources without what git ignores."""
    skipped = shutil.ignore_patterns('.*', '*.so', 'data', 'work_dirs', 'build',
                                     '*.egg-info', '__pycache__', 'tests')
    return Path(shutil.copytree(root, tmp_path / 'tree', ignore=skipped))


@pytest.fixture
def functions(monkeypatch, root):
    """Return the functions of setup.py."""
    monkeypatch.setattr(setuptools, 'setup', lambda **_: None)
    monkeypatch.chdir(root)
    return runpy.run_path(str(root / 'setup.py'))


def setup(tree, *words):
    """Run a command of setup.py."""
    subprocess.run(
        [sys.executable, 'setup.py', '-q', *map(str, words)], cwd=tree,
        check=True, capture_output=True)


def files(folder):
    """Map each relative path in a folder to its content."""
    return {file.relative_to(folder).as_posix(): file.read_bytes()
            for file in folder.rglob('*')
            if file.is_file() and '__pycache__' not in file.parts}


def expected(tree):
    """Return the files that .mim has to hold."""
    found = {'model-index.yml': (tree / 'model-index.yml').read_bytes()}
    for part in PARTS:
        found.update({f'{part}/{name}': content
                      for name, content in files(tree / part).items()})
    return found


def test_build_py_replaces_copies(tree, tmp_path):
    mim = tmp_path / 'lib' / 'mmseg_encstdc' / '.mim'
    (mim / 'configs').mkdir(parents=True)
    (mim / 'configs' / 'removed_since.py').touch()
    setup(tree, 'build_py', '--build-lib', tmp_path / 'lib')
    assert files(mim) == expected(tree)
    assert os.access(mim / 'tools' / 'dist_train.sh', os.X_OK)
    assert (mim.parent / 'ops' / '__init__.py').is_file()
    assert not (tree / 'mmseg_encstdc' / '.mim').exists()


def test_build_from_sdist_is_equal(tree, tmp_path):
    (tree / 'mmseg_encstdc' / '.mim').mkdir()
    (tree / 'mmseg_encstdc' / '.mim' / 'stale.py').touch()
    setup(tree, 'sdist', '--formats', 'gztar', '--dist-dir', tmp_path)
    archive, = tmp_path.glob('*.tar.gz')
    with tarfile.open(archive) as opened:
        assert not [name for name in opened.getnames() if '/.mim' in name]
        opened.extractall(tmp_path / 'opened')
    unpacked, = (tmp_path / 'opened').iterdir()
    setup(unpacked, 'build_py', '--build-lib', tmp_path / 'lib')
    assert files(tmp_path / 'lib/mmseg_encstdc/.mim') == expected(tree)


def test_editable_wheel_names_checkout_with_links(tree, tmp_path):
    folder = tree / 'mmseg_encstdc' / '.mim'
    folder.mkdir()
    (folder / 'stale').touch()
    setup(tree, 'editable_wheel', '--dist-dir', tmp_path)
    wheel, = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as opened:
        top, = (name for name in opened.namelist()
                if name.endswith('.dist-info/top_level.txt'))
        assert opened.read(top).decode().splitlines() == [
            str(tree / 'mmseg_encstdc'), 'mmseg_encstdc']
        # A folder of that name would hide the package from Python.
        assert not [name for name in opened.namelist()
                    if name.startswith('mmseg_encstdc/')]
    assert sorted(path.name for path in folder.iterdir()) == sorted(PARTS)
    assert all(path.is_symlink() for path in folder.iterdir())
    (tree / 'configs' / 'written_later.py').touch()
    assert (folder / 'configs' / 'written_later.py').is_file()


def test_link_for_mim_copies_if_links_fail(
        functions, monkeypatch, tmp_path, capsys, root):
    def refuse(*_, **__):
        raise OSError('no links here')

    monkeypatch.setattr(Path, 'symlink_to', refuse)
    functions['link_for_mim'](tmp_path / '.mim')
    assert files(tmp_path / '.mim')['model-index.yml'] == (
        root / 'model-index.yml').read_bytes()
    assert 'no links here' in (said := capsys.readouterr().out)
    assert 'install again after an edit' in said


def test_packages_exclude_copies_for_mim(functions, tmp_path):
    for folder in ('ops', '.mim/benchmarks/any'):
        (tmp_path / 'mmseg_encstdc' / folder).mkdir(parents=True)
        (tmp_path / 'mmseg_encstdc' / folder / '__init__.py').touch()
    packages = functions['packages']
    packages.__globals__['ROOT'] = tmp_path
    assert packages() == ['mmseg_encstdc.ops']


@pytest.mark.parametrize('tool', ['train', 'make_scenes'])
def test_installed_tool_starts_outside_checkout(
        functions, tmp_path, root, tool):
    functions['copy_for_mim'](tmp_path / '.mim')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', f'.mim/tools/{tool}.py', '--help'],
        cwd=tmp_path, env={'PYTHONPATH': str(root), 'PATH': ''},
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'usage' in done.stdout


def test_installed_benchmark_writes_to_working_directory(
        functions, tmp_path, root):
    functions['copy_for_mim'](tmp_path / '.mim')
    before = files(tmp_path / '.mim')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '.mim/tools/benchmark.py', 'op',
         '--device', 'cpu', '--shapes', '1x8x4x4x3', '--rounds', '1',
         '--no-memory', '--no-plot', '--name', 'tiny'],
        cwd=tmp_path, env={'PYTHONPATH': str(root), 'PATH': ''},
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'work_dirs' / 'benchmark' / 'tiny.json').is_file()
    assert files(tmp_path / '.mim') == before


@pytest.mark.slow
@pytest.mark.mim
def test_mim_check_passes(root, pytestconfig):
    """Run dev/mim_check.py in a new environment, as ``make mim-check`` does."""
    named = re.search(r'\b(mim|slow)\b', pytestconfig.option.markexpr or '')
    if not named and os.environ.get(ASKED) != '1':
        pytest.skip('makes an environment of its own, which takes minutes and a '
                    f'package index; ask with -m mim or {ASKED}=1')
    subprocess.run(['make', 'mim-check'], cwd=root, check=True)
