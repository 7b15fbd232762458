"""Build of the package. What it needs and who wrote it is in pyproject.toml.

The CUDA kernels in ops are built where a CUDA build of
PyTorch and nvcc are there, which build isolation hides:
``pip install --no-build-isolation .``. Else the package is pure Python. An nvcc
that is there and fails ends the build with its error, because the kernels were
asked for.

They are built for the GPUs that are visible, for TORCH_CUDA_ARCH_LIST where it
is set, and without either for :data:`ARCHITECTURES`.

mim looks for configs, tools and model-index.yml in mmseg_encstdc/.mim. An
install gets copies there (:class:`BuildPy`); an editable one gets links in the
checkout, and metadata that lead mim to them (:class:`EditableWheel`).
"""
import os
import re
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
SOURCES = ('*.cpp', '*.cu')
HEADERS = ('*.h', '*.cuh')
# What mim looks for, and what the tools need beside them.
FOR_MIM = ('configs', 'tools', 'model-index.yml', 'benchmarks')
MIM = Path('mmseg_encstdc', '.mim')
# Compute capabilities, and the CUDA that knows them.
ARCHITECTURES = {'8.0': (11, 0), '8.6': (11, 1), '8.9': (11, 8),
                 '9.0': (11, 8), '10.0': (12, 8)}


def version() -> str:
    """The version that mmseg_encstdc/__init__.py states."""
    text = (ROOT / 'mmseg_encstdc' / '__init__.py').read_text()
    return re.search(r"^__version__ = '(.+)'$", text, re.M).group(1)


def packages() -> list:
    """Named, because ops, configs and tools beside it are none."""
    files = (ROOT / 'mmseg_encstdc').glob('**/__init__.py')
    folders = [file.parent.relative_to(ROOT) for file in files]
    return sorted('.'.join(folder.parts) for folder in folders
                  if MIM.name not in folder.parts)


class BuildPy(build_py):
    """The modules, and copies for mim beside them."""

    def run(self):
        super().run()
        if not self.editable_mode:
            copy_for_mim(Path(self.build_lib) / MIM)

    def get_outputs(self, include_bytecode=1):
        outputs = super().get_outputs(include_bytecode)
        if self.editable_mode:
            return outputs
        copies = (Path(self.build_lib) / MIM).rglob('*')
        return outputs + [str(file) for file in copies if file.is_file()]


class Develop(develop):
    """Legacy: the checkout is on sys.path, and mim finds the links in it."""

    def run(self):
        link_for_mim(ROOT / MIM)
        super().run()


class EditableWheel(editable_wheel):
    """Metadata that lead mim to the checkout.

    mim looks in the site-packages, where the wheel is unpacked, for the first
    name of top_level.txt. A folder of that name there would hide the package
    from Python, and a wheel holds no links, so that copies in it would miss
    every edit. A path as that name leads out of site-packages; the second name
    is for everyone else.
    """

    def run(self):
        link_for_mim(ROOT / MIM)
        super().run()

    def _create_wheel_file(self, bdist_wheel):
        (Path(self.dist_info_dir) / 'top_level.txt').write_text(
            f'{ROOT / MIM.parent}\n{MIM.parent}\n', encoding='utf-8')
        return super()._create_wheel_file(bdist_wheel)


def copy_for_mim(folder: Path) -> None:
    """Fill a folder with copies; what an earlier build left there goes."""
    shutil.rmtree(folder, ignore_errors=True)
    unwanted = shutil.ignore_patterns('__pycache__', '*.py[cod]', '*.so')
    folder.mkdir(parents=True)
    for source in (ROOT / name for name in FOR_MIM):
        if source.is_dir():
            shutil.copytree(source, folder / source.name, ignore=unwanted)
        else:
            shutil.copy2(source, folder)


def link_for_mim(folder: Path) -> None:
    """Fill a folder with links, or with copies where links cannot be made."""
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
    """Arguments of setup() for the kernels; none where they cannot be built."""
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
    # cpp_extension finds nvcc, headers and libraries by this.
    cpp_extension.CUDA_HOME = home = toolkit(home)
    if not torch.cuda.device_count():
        choose_architectures(torch.version.cuda, home)
    module = cpp_extension.CUDAExtension(
        'mmseg_encstdc._cuda', kernels(SOURCES), depends=kernels(HEADERS),
        extra_compile_args=dict(cxx=['-O3'], nvcc=['-O3']))
    return dict(ext_modules=[module],
                cmdclass=dict(build_ext=cpp_extension.BuildExtension))


def kernels(patterns: tuple) -> list:
    """Files in ops and its folders, as setuptools wants them."""
    return sorted(file.relative_to(ROOT).as_posix() for pattern in patterns
                  for file in (ROOT / 'ops').rglob(pattern))


def toolkit(home: str) -> str:
    """The folder of the CUDA toolkit; ``home`` is around bin/nvcc.

    Where that is a wrapper, the headers lie elsewhere, and nvcc knows where.
    """
    header = 'include/cuda_runtime.h'
    if (Path(home) / header).exists():
        return home
    top = said(home, '--dryrun', '-c', 'none.cu', pattern=r'^#\$ TOP=(.+)$')
    if not top or not (Path(top) / header).exists():
        return home
    top = str(Path(top).resolve())
    say(f'{home} has no {header}; its nvcc names {top}, which is taken')
    return top


def choose_architectures(cuda: str, home: str) -> None:
    """Set TORCH_CUDA_ARCH_LIST unless it is; PyTorch finds none without a GPU.

    ``cuda`` is the one of PyTorch; that of nvcc may be another.
    """
    if os.environ.get('TORCH_CUDA_ARCH_LIST'):
        return
    nvcc = said(home, '--version', pattern=r'release (\d+\.\d+)')
    release = min(tuple(map(int, text.split('.')[:2]))
                  for text in (cuda, nvcc) if text)
    known = [arch for arch, since in ARCHITECTURES.items() if since <= release]
    os.environ['TORCH_CUDA_ARCH_LIST'] = ';'.join(known) + '+PTX'
    say('no GPU is visible, the kernels are built for TORCH_CUDA_ARCH_LIST='
        + os.environ['TORCH_CUDA_ARCH_LIST'])


def said(home: str, *words: str, pattern: str) -> str:
    """What nvcc prints in the place of a group, or nothing."""
    try:
        done = subprocess.run([str(Path(home) / 'bin' / 'nvcc'), *words],
                              capture_output=True, text=True)
    except OSError:  # the build itself will say so
        return ''
    found = re.search(pattern, done.stdout + done.stderr, re.M)
    return found.group(1) if found else ''


def skip(reason: str) -> dict:
    """No extension, and why."""
    say(f'no CUDA kernels, because {reason}')
    return {}


def say(line: str) -> None:
    print(f'mmseg_encstdc: {line}')


def commands(more: dict) -> dict:
    """Arguments of setup() with the commands of this file added."""
    ours = dict(build_py=BuildPy, develop=Develop, editable_wheel=EditableWheel)
    return {**more, 'cmdclass': {**ours, **more.get('cmdclass', {})}}


setup(version=version(), packages=packages(), **commands(extension()))
