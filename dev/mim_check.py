#!/usr/bin/env python
"""Run mim's commands on every kind of install: dev/mim_check.py PYTHON

PYTHON is that of an environment with the stack and mim, in which the package is
installed and uninstalled; make mim-check makes one. Prints each command. Ends with 1
and the output of the first command that does not print what is expected.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Iterator, Optional

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, CONFIG = 'mmseg_encstdc', 'encnet_r18_scenes.py'
SHORT = ['--cfg-options', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
         'default_hooks.checkpoint.interval=2', 'train_dataloader.batch_size=2',
         'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']
# A user's configs, as docs/mim.md has them.
BASES = {
    'by_name.py': f"_base_ = '{PACKAGE}::{CONFIG}'",
    'by_path.py': f"_base_ = __import__('{PACKAGE}').config_file('{CONFIG}')",
}
WHERE = ('from mim.utils import get_installed_path; '
         f"print(get_installed_path('{PACKAGE}') + '/.mim')")


class Shell:
    """Run programs of an environment in a folder.

    Args:
        python: of the environment; not resolved, because it may be a link out of
            the environment.
        folder: working directory, outside every checkout.
    """

    def __init__(self, python: Path, folder: Path):
        self.python, self.folder = python, folder
        self.env = {key: value for key, value in os.environ.items()
                    if not key.startswith(('PYTHONPATH', 'VIRTUAL_ENV'))}
        # mim looks for wheels of mmcv here, and none is needed. The value must be an
        # address; this one fails without a request.
        self.env.setdefault('MMCV_BASE_URL', 'file:///nowhere')
        self.env['PYTHONWARNINGS'] = 'ignore'

    def __call__(self, program: str, *words: object, says: str = '',
                 fails: bool = False) -> str:
        """Run a program and return its output.

        Args:
            program: in the environment's bin folder.
            *words: its arguments.
            says: pattern that the output has to match.
            fails: whether the program has to fail.
        """
        words = [str(word) for word in words]
        print('$', program, *words, flush=True)
        started = time.time()
        done = subprocess.run(
            [str(self.python.parent / program), *words], cwd=self.folder,
            env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True)
        if bool(done.returncode) != fails or not re.search(says, done.stdout):
            sys.exit(f'{done.stdout}\nerror: ended with {done.returncode}, and '
                     f'"{says}" was expected in its output: {program} '
                     + ' '.join(words))
        print(f'  as expected, after {time.time() - started:.0f} s', flush=True)
        return done.stdout

    def python_says(self, code: str) -> str:
        """Return the last line that Python code prints."""
        return self('python', '-c', code).splitlines()[-1]


def checkout(folder: Path) -> Path:
    """Copy the sources, without what git ignores."""
    unwanted = shutil.ignore_patterns(
        '.*', '*.so', '*.egg-info', '__pycache__', 'build', 'data', 'dist',
        'pretrained', 'work_dirs')
    return Path(shutil.copytree(ROOT, folder / 'checkout', ignore=unwanted))


def installs(shell: Shell, source: Path) -> Iterator[str]:
    """Install the package in each way, and yield a name of the way."""
    install = ('mim', 'install')
    done = f'Successfully installed {PACKAGE.replace("_", "[-_]")}'
    shell(*install, '-e', source, says=done)
    check_edits(shell, source)
    yield 'editable'
    shell(*install, source, says=done)
    yield 'from the checkout'
    shell('pip', 'wheel', '--no-deps', '--wheel-dir', 'wheels', source)
    wheel, = shell.folder.glob('wheels/*.whl')
    shell('mim', 'uninstall', '--yes', PACKAGE)
    shell(*install, wheel, says=done)
    yield 'of a wheel'


def check_edits(shell: Shell, source: Path) -> None:
    """Check that an editable install has a config that was written after it."""
    (source / 'configs' / 'written_later.py').write_text('later = True\n')
    path = Path(shell.python_says(WHERE)) / 'configs' / 'written_later.py'
    if not path.is_file():
        sys.exit(f'error: {path} is not there')
    (source / 'configs' / 'written_later.py').unlink()


def check_resources(shell: Shell) -> None:
    """Check that the files which mim looks for exist."""
    folder = Path(shell.python_says(WHERE))
    for name in ('model-index.yml', 'configs/metafile.yml', 'tools/train.py',
                 f'configs/{CONFIG}', 'configs/_base_/default_runtime.py'):
        if not (folder / name).is_file():
            sys.exit(f'error: {folder / name} is not there')


def check_search(shell: Shell) -> None:
    """Check that mim search prints every config, and a result."""
    says = [f'config id: {file.stem}' for file in (ROOT / 'configs').glob('*.py')]
    found = shell('mim', 'search', PACKAGE, says=r'\(paper\)/miou')
    missing = [line for line in says if line not in found]
    if missing:
        sys.exit(f'error: mim search does not print {missing}')
    shell('mim', 'search', PACKAGE, '--model', 'stdc-seg', '--field', 'miou',
          says=r'scenes val \(ours\)/miou +46\.67')


def check_training(shell: Shell) -> None:
    """Train, and evaluate with our tool and with MMSegmentation's."""
    shell('mim', 'run', PACKAGE, 'make_scenes', 'data/scenes', '--train', 4,
          '--val', 2, says='4 train . 2 val scenes')
    shutil.rmtree(shell.folder / 'work', ignore_errors=True)
    work = ['--work-dir', 'work']
    shell('mim', 'train', PACKAGE, CONFIG, *work, *SHORT,
          says='Training finished successfully')
    for package, config in ((PACKAGE, CONFIG), (PACKAGE, 'by_name.py'),
                            ('mmsegmentation', 'by_path.py')):
        shell('mim', 'test', package, config, '-C', 'work/iter_2.pth', *work,
              says='mIoU: [0-9.]+(.|\n)*Testing finished successfully')


def check_others(shell: Shell) -> None:
    """Check mim run and mim download."""
    shell('mim', 'run', PACKAGE, 'benchmark', 'op', '--device', 'cpu', '--quick',
          '--rounds', 1, '--no-memory', '--no-plot', says='script finished')
    shell('mim', 'download', PACKAGE, '--config', 'encnet_r50_ade', '--dest',
          'weights', says=r"got {'weight'}", fails=True)


def check_uninstall(shell: Shell) -> None:
    """Uninstall, and check that site-packages has no files of the package."""
    folder = Path(shell.python_says(
        "import sysconfig; print(sysconfig.get_path('purelib'))"))
    shell('mim', 'uninstall', '--yes', PACKAGE, says='Successfully uninstalled')
    left = [path.name for path in folder.glob(f'*{PACKAGE}*')]
    if left:
        sys.exit(f'error: {folder} still has {left}')


def main(words: Optional[list] = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('python', type=Path, help='of an environment with mim')
    python = parser.parse_args(words).python.absolute()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, user = checkout(folder), folder / 'user'
        user.mkdir()
        for config, text in BASES.items():
            (user / config).write_text(f'{text}\n')
        shell = Shell(python, user)
        for kind in installs(shell, source):
            for check in (check_resources, check_search, check_training,
                          check_others):
                check(shell)
            print(f'mim works with an install that is {kind}', flush=True)
        check_uninstall(shell)


if __name__ == '__main__':
    main()
