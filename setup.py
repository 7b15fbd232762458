"""Build the package, with CUDA kernels if possible; pyproject.toml has the metadata.

The kernels in ops/ are built if there are nvcc and a CUDA build of PyTorch, which
build isolation hides: ``pip install --no-build-isolation .``. Otherwise the package
is pure Python. An error of nvcc ends the build. The kernels are built for
TORCH_CUDA_ARCH_LIST if it is set, else for the visible GPUs, else for
:data:`ARCHITECTURES`.

mim looks for configs, tools and model-index.yml in mmseg_encstdc/.mim. An install has
copies there (:class:`BuildPy`). An editable install has links in the checkout, and
metadata that name the checkout (:class:`EditableWheel`).
"""
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import List, Tuple

from setuptools import Command, setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
SOURCES = ('*.cpp', '*.cu')
HEADERS = ('*.h', '*.cuh')
# Files that mim looks for, and benchmarks, which tools/benchmark.py imports.
FOR_MIM = ('configs', 'tools', 'model-index.yml', 'benchmarks')
MIM = Path('mmseg_encstdc', '.mim')
# Compute capability -> first CUDA release that supports it.
ARCHITECTURES = {'8.0': (11, 0), '8.6': (11, 1), '8.9': (11, 8),
                 '9.0': (11, 8), '10.0': (12, 8)}


def version() -> str:
    """Return the version that mmseg_encstdc/__init__.py states."""
    text = (ROOT / 'mmseg_encstdc' / '__init__.py').read_text()
    return re.search(r"^__version__ = '(.+)'$", text, re.M).group(1)


def packages() -> List[str]:
    """Return the packages in mmseg_encstdc, without copies for mim."""
    files = (ROOT / 'mmseg_encstdc').glob('**/__init__.py')
    folders = [file.parent.relative_to(ROOT) for file in files]
    return sorted('.'.join(folder.parts) for folder in folders
                  if MIM.name not in folder.parts)


class BuildPy(build_py):
    """Build the modules, and copies for mim."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            copy_for_mim(Path(self.build_lib) / MIM)

    def get_outputs(self, include_bytecode: int = 1) -> List[str]:
        outputs = super().get_outputs(include_bytecode)
        if self.editable_mode:
            return outputs
        copies = (Path(self.build_lib) / MIM).rglob('*')
        return outputs + [str(file) for file in copies if file.is_file()]


class Develop(develop):
    """Link the files for mim in a legacy editable install."""

    def run(self) -> None:
        link_for_mim(ROOT / MIM)
        super().run()


class EditableWheel(editable_wheel):
    """Write metadata that name the checkout to mim.

    mim joins site-packages and the first name of top_level.txt. A folder of the
    package's name in site-packages would hide the checkout from Python, and a wheel
    holds no links. An absolute path as the first name leads to the checkout; the
    second name is for other readers.
    """

    def run(self) -> None:
        link_for_mim(ROOT / MIM)
        super().run()

    def _create_wheel_file(self, bdist_wheel: Command) -> str:
        (Path(self.dist_info_dir) / 'top_level.txt').write_text(
            f'{ROOT / MIM.parent}\n{MIM.parent}\n', encoding='utf-8')
        return super()._create_wheel_file(bdist_wheel)


def copy_for_mim(folder: Path) -> None:
    """Replace the content of a folder by copies."""
    shutil.rmtree(folder, ignore_errors=True)
    unwanted = shutil.ignore_patterns('__pycache__', '*.py[cod]', '*.so')
    folder.mkdir(parents=True)
    for source in (ROOT / name for name in FOR_MIM):
        if source.is_dir():
            shutil.copytree(source, folder / source.name, ignore=unwanted)
        else:
            shutil.copy2(source, folder)


def link_for_mim(folder: Path) -> None:
    """Replace the content of a folder by links, or by copies if links fail."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        for name in FOR_MIM:
            (folder / name).symlink_to(
                os.path.relpath(ROOT / name, folder), (ROOT / name).is_dir())
    except OSError as error:
        say(f'no links in {folder} ({error}), so it gets copies: install again '
            'after an edit of configs or tools')
        copy_for_mim(folder)


def extension() -> dict:
    """Return arguments of setup() for the kernels; none if they cannot be built."""
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError:
        return skip('PyTorch is not there')
    if torch.version.cuda is None:
        return skip('this PyTorch is built without CUDA')
    home = cpp_extension.CUDA_HOME
    if home is None or not (Path(home) / 'bin' / 'nvcc').exists():
        return skip('nvcc is not there')
    if not kernels(SOURCES):
        return skip('the kernels are not in this folder')
    cpp_extension.CUDA_HOME = home = toolkit(home)
    if not torch.cuda.device_count():
        choose_architectures(torch.version.cuda, home)
    module = cpp_extension.CUDAExtension(
        'mmseg_encstdc._cuda', kernels(SOURCES), depends=kernels(HEADERS),
        extra_compile_args=dict(cxx=['-O3'], nvcc=['-O3']))
    return dict(ext_modules=[module],
                cmdclass=dict(build_ext=cpp_extension.BuildExtension))


def kernels(patterns: Tuple[str, ...]) -> List[str]:
    """Return the files in ops/ that match, relative to the checkout."""
    return sorted(file.relative_to(ROOT).as_posix() for pattern in patterns
                  for file in (ROOT / 'ops').rglob(pattern))


def toolkit(home: str) -> str:
    """Return the folder with CUDA's headers; ``home`` holds bin/nvcc.

    If that nvcc is a wrapper, it prints the folder of the real toolkit.
    """
    header = 'include/cuda_runtime.h'
    if (Path(home) / header).exists():
        return home
    top = ask_nvcc(home, r'^#\$ TOP=(.+)$', '--dryrun', '-c', 'none.cu')
    if not top or not (Path(top) / header).exists():
        return home
    top = str(Path(top).resolve())
    say(f'{home} has no {header}; its nvcc names {top}, which is taken')
    return top


def choose_architectures(cuda: str, home: str) -> None:
    """Set TORCH_CUDA_ARCH_LIST, unless it is set, for a build without a GPU.

    Args:
        cuda: CUDA release of PyTorch; the lower of this and nvcc's counts.
        home: folder that holds bin/nvcc.
    """
    if os.environ.get('TORCH_CUDA_ARCH_LIST'):
        return
    nvcc = ask_nvcc(home, r'release (\d+\.\d+)', '--version')
    release = min(tuple(map(int, text.split('.')[:2]))
                  for text in (cuda, nvcc) if text)
    known = [arch for arch, since in ARCHITECTURES.items() if since <= release]
    os.environ['TORCH_CUDA_ARCH_LIST'] = ';'.join(known) + '+PTX'
    say('no GPU is visible, the kernels are built for TORCH_CUDA_ARCH_LIST='
        + os.environ['TORCH_CUDA_ARCH_LIST'])


def ask_nvcc(home: str, pattern: str, *words: str) -> str:
    """Return the group of a pattern in nvcc's output, or an empty string."""
    try:
        done = subprocess.run([str(Path(home) / 'bin' / 'nvcc'), *words],
                              capture_output=True, text=True)
    except OSError:  # the build itself will fail with this error
        return ''
    found = re.search(pattern, done.stdout + done.stderr, re.M)
    return found.group(1) if found else ''


def skip(reason: str) -> dict:
    """Print why there is no extension; return no arguments for setup()."""
    say(f'no CUDA kernels, because {reason}')
    return {}


def say(line: str) -> None:
    print(f'mmseg_encstdc: {line}')


def commands(more: dict) -> dict:
    """Add the commands of this file to arguments of setup()."""
    ours = dict(build_py=BuildPy, develop=Develop, editable_wheel=EditableWheel)
    return {**more, 'cmdclass': {**ours, **more.get('cmdclass', {})}}


setup(version=version(), packages=packages(), **commands(extension()))
