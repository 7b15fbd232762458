"""Build of the package. What it needs and who wrote it is in pyproject.toml.

The CUDA kernels in ops are built where a CUDA build of
PyTorch and nvcc are there, which build isolation hides:
``pip install --no-build-isolation .``. Else the package is pure Python. An nvcc
that is there and fails ends the build with its error, because the kernels were
asked for.

They are built for the GPUs that are visible, for TORCH_CUDA_ARCH_LIST where it
is set, and without either for :data:`ARCHITECTURES`.
"""
import os
import re
import subprocess
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
SOURCES = ('*.cpp', '*.cu')
HEADERS = ('*.h', '*.cuh')
# Compute capabilities, and the CUDA that knows them.
ARCHITECTURES = {'8.0': (11, 0), '8.6': (11, 1), '8.9': (11, 8),
                 '9.0': (11, 8), '10.0': (12, 8)}


def version() -> str:
    """The version that mmseg_encstdc/__init__.py states."""
    text = (ROOT / 'mmseg_encstdc' / '__init__.py').read_text()
    return re.search(r"^__version__ = '(.+)'$", text, re.M).group(1)


def packages() -> list:
    """Named, because ops, configs and tools beside it are none."""
    folders = (ROOT / 'mmseg_encstdc').glob('**/__init__.py')
    return sorted(
        '.'.join(f.parent.relative_to(ROOT).parts) for f in folders)


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
    """Files in ops, as setuptools wants them."""
    return sorted(file.relative_to(ROOT).as_posix() for pattern in patterns
                  for file in (ROOT / 'ops').glob(pattern))


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


setup(version=version(), packages=packages(), **extension())
