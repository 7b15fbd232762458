#!/usr/bin/env python
"""Run every command of the documents: dev/docs_check.py [DOCUMENT ...]

In README.md, README_zh-CN.md and docs/*.md, each bash block (with -e) and each python
block runs in a process of its own, from the root of a copy of the checkout, with this
environment on PATH. A block finds the files that the blocks before it wrote. Comments
right before a block, one a line, say what it needs:

    <!-- docs-check: needs gpu -->             or network, or cluster (Slurm)
    <!-- docs-check: needs gpu nvcc -->        and this program
    <!-- docs-check: needs data data/camvid --> a path of the checkout
    <!-- docs-check: with --max-iters 4 -->    appended to trainings
    <!-- docs-check: replace iter_600 with iter_4 -->
    <!-- docs-check: file configs/street.py --> write the python block to this file
    <!-- docs-check: minutes 20 -->            instead of --minutes
    <!-- docs-check: new environment -->       for installs; blocks of a document with
                                               the same name after it share one

A block is skipped only when something that it needs is missing. Blocks that install
must be marked, so that this environment does not change. A new environment finds the
packages of this one after its own.
"""
import argparse
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch

ROOT = Path(__file__).resolve().parents[1]
MARK = re.compile(r'<!-- docs-check: (.*?) *-->$')
FENCE = re.compile(r'^( *)```(\S*)$')
MARKS = re.compile(
    r'needs (gpu( \w+)?|network|cluster|data \w(?!.*\.\.)\S*)|with .+|'
    r'replace .+ with .+|file (?!.*\.\.)[^/\s]\S*|minutes [1-9]\d*|'
    r'new environment( \w+)?')
NOT_RUN = ('sh', 'shell', 'console', 'zsh', 'py', 'python3')
COMMAND = re.compile(r'(?:.*\\\n)*.+')  # a line, with those that it continues on
TRAININGS = re.compile(
    r'mim train|tools/(train\.py|dist_train\.sh|slurm_train\.sh)')
INSTALLS = re.compile(r'\b(pip|mim) (un)?install\b')


class DocumentError(ValueError):
    """Report a marker or block that would not be run."""


class Block(NamedTuple):
    """Hold the code of a block and its markers."""
    document: str
    line: int  # of its first line of code, from 1
    language: str
    text: str
    marks: Tuple[str, ...]

    def marked(self, kind: str) -> List[str]:
        """Return the values of the markers of a kind."""
        return [mark[len(kind):].strip() for mark in self.marks
                if mark.split()[0] == kind]


# --- Read documents ----------------------------------------------------------


def blocks(document: str, text: str) -> Iterator[Block]:
    """Yield the bash and python blocks of a document.

    Raises:
        DocumentError: for a fence that is never closed, a language that would not
            be run, an unmarked install, and a marker that is unknown or before no
            block.
    """
    lines, marks, at = text.splitlines(), [], 0
    while at < len(lines):
        place = f'{document}:{at + 1}'
        mark, fence = MARK.match(lines[at].strip()), FENCE.match(lines[at])
        if mark and not MARKS.fullmatch(mark[1]):
            raise DocumentError(f'{place} has the docs-check marker "{mark[1]}", '
                                'which is unknown; see dev/docs_check.py --help')
        elif mark:
            marks.append(mark[1])
        elif fence:
            end = at + 1
            while end < len(lines) and lines[end].strip() != '```':
                end += 1
            if end == len(lines):
                raise DocumentError(f'{place} is never closed')
            code = '\n'.join(line[len(fence[1]):] for line in lines[at + 1:end])
            if fence[2] in NOT_RUN:
                raise DocumentError(f'{place} is ```{fence[2]}; write ```bash or '
                                    '```python, which are run')
            if fence[2] in ('bash', 'python'):
                block = Block(document, at + 2, fence[2], code + '\n', tuple(marks))
                if INSTALLS.search(code) and not block.marked('new'):
                    raise DocumentError(f'{place} installs; mark it '
                                        '<!-- docs-check: new environment -->')
                yield block
            marks, at = [], end
        elif lines[at].strip() and marks:
            raise DocumentError(f'{place} is no block, but a docs-check marker is '
                                'before it')
        at += 1


def adapted(block: Block) -> str:
    """Return the code as the markers ``replace`` and ``with`` change it."""
    text = block.text
    for rule in block.marked('replace'):
        text = text.replace(*rule.split(' with ', 1))
    options = block.marked('with')
    return COMMAND.sub(lambda command: ' '.join(
        [command[0], *options]) if TRAININGS.search(command[0]) else command[0], text)


def documents(names: List[str], root: Path) -> List[Block]:
    """Return the blocks of the documents, by default of all, README first.

    Raises:
        DocumentError: see :func:`blocks`.
    """
    paths = [root / name for name in names] or [
        *sorted(root.glob('README*.md')), *sorted((root / 'docs').glob('*.md'))]
    found = []
    for path in paths:
        if not path.is_file():
            raise DocumentError(f'{path} does not exist')
        found += blocks(str(path.relative_to(root)), path.read_text())
    return found


# --- Find out what is there ----------------------------------------------------


def unmet(block: Block, root: Path) -> Optional[str]:
    """Return the first need of a block that this machine does not meet, or None."""
    for need in block.marked('needs'):
        kind, _, name = need.partition(' ')
        if kind == 'data':
            met = (root / name).exists()
        elif kind == 'gpu':
            met = torch.cuda.is_available() and (not name or shutil.which(name))
        else:
            met = has_network() if kind == 'network' else shutil.which('srun')
        if not met:
            return need
    return None


@functools.cache
def has_network() -> bool:
    """Return whether pip reaches the package index that it is configured for."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, '-m', 'pip', 'download', '--timeout', '5',
             '--retries', '0', '--quiet', '--no-deps', '--dest', folder, 'pip'],
            capture_output=True).returncode == 0


def copy_checkout(root: Path, target: Path, needed: List[str]) -> None:
    """Copy the files that git has or would add; link the environment and data."""
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split('\0')):
        source = root / name
        if source.is_file():  # neither deleted nor a linked environment
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)  # with its time, for make
    (target / '.venv').symlink_to(sys.prefix)
    for name in needed:
        if (root / name).exists() and not (target / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).symlink_to((root / name).resolve())


# --- Run -----------------------------------------------------------------------


def environment(block: Block, copy: Path) -> Dict[str, str]:
    """Return the variables of a block, with the Python of its environment on PATH.

    A new environment is made beside the copy, once for each name.
    """
    folder = copy / '.venv'
    for mark in block.marked('new'):
        name = f'{block.document}-{mark[len("environment "):] or block.line}'
        folder = copy.parent / f'environment-{re.sub("[^A-Za-z0-9]", "-", name)}'
        if not folder.exists():
            venv.create(folder, with_pip=True)
            packages, = folder.glob('lib/python*/site-packages')
            outer = [path for path in sys.path if path.endswith('site-packages')]
            (packages / 'outer.pth').write_text('\n'.join(outer))
    env = {key: value for key, value in os.environ.items()
           if key not in ('PYTHONPATH', 'MAKEFLAGS', 'MAKELEVEL', 'VENV')}
    return {**env, 'PATH': f'{folder / "bin"}{os.pathsep}{env.get("PATH", "")}'}


def words_of(block: Block, copy: Path) -> List[str]:
    """Return the command line of a block; write the file of a ``file`` block first.

    A file with ``_base_`` is loaded as a config, any other is compiled.
    """
    if block.language == 'bash':
        return ['bash', '-exc', adapted(block)]
    if not block.marked('file'):
        return ['python', '-c', adapted(block)]
    path, = block.marked('file')
    (copy / path).parent.mkdir(parents=True, exist_ok=True)
    (copy / path).write_text(block.text)
    code = f'compile(open({path!r}).read(), {path!r}, "exec")'
    if re.search(r'^_base_ ?=', block.text, re.M):
        code = ('import mmseg_encstdc; from mmengine.config import Config; '
                f'Config.fromfile({path!r})')
    return ['python', '-c', code]


def execute(words: List[str], copy: Path, env: Dict[str, str], seconds: float
            ) -> Tuple[Optional[int], str]:
    """Return exit code and output; the code is None when time was up."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            words, cwd=copy, env=env, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # the session above
                process.wait()
        output.seek(0)
        return code, output.read().decode(errors='replace')


def run_block(block: Block, root: Path, copy: Path, minutes: float) -> str:
    """Run a block and print the outcome: 'ok', 'skipped' or 'FAILED'."""
    place, need = f'{block.document}:{block.line}', unmet(block, root)
    if need:
        print(f'skipped {place}  (no {need})', flush=True)
        return 'skipped'
    env, words, started = environment(block, copy), words_of(block, copy), time.time()
    limit = float((block.marked('minutes') or [minutes])[0])
    code, output = execute(words, copy, env, 60 * limit)
    outcome, tail = 'ok', ''
    if code != 0:
        reason = 'time is up' if code is None else f'exit code {code}'
        outcome = 'FAILED'
        tail = ''.join(f'\n    {line}' for line in (
            f'{reason}, after:', *output.splitlines()[-25:]))
    print(f'{outcome:<7} {place}  ({time.time() - started:.1f} s){tail}', flush=True)
    return outcome


def check(names: List[str], minutes: float, copy: Path) -> int:
    """Run all blocks in a copy of the checkout; return 1 if one failed, else 0."""
    found = documents(names, ROOT)
    copy_checkout(ROOT, copy, [
        need[len('data '):] for block in found for need in block.marked('needs')
        if need.startswith('data ')])
    count = Counter(run_block(block, ROOT, copy, minutes) for block in found)
    print(f'{count["ok"] + count["FAILED"]} blocks ran, {count["skipped"]} were '
          f'skipped, {count["FAILED"]} failed')
    return int(count['FAILED'] > 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('documents', nargs='*', help='default: all of them')
    parser.add_argument('--minutes', type=float, default=30,
                        help='limit of each block; default: 30')
    parser.add_argument('--keep', action='store_true',
                        help='do not remove the copy of the checkout')
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix='docs_check_'))
    copy = folder / ROOT.name
    try:
        copy.mkdir()
        sys.exit(check(args.documents, args.minutes, copy))
    except (DocumentError, subprocess.CalledProcessError) as error:
        sys.exit(f'error: {error}')
    finally:
        if args.keep:
            print(f'the copy is {copy}')
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    main()
