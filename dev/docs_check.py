#!/usr/bin/env python
"""Run every command of the documents: dev/docs_check.py [DOCUMENT ...]

In README.md, README_zh-CN.md and docs/*.md, the bash blocks are run command by
command and each python block in a process of its own, from the root of a copy
of the checkout, with this environment on PATH. Blocks of a document see what
those before wrote; a command that fails ends its block. Comments right before a
block, one a line, say what it needs:

    <!-- docs-check: needs gpu -->             or network, or cluster (Slurm)
    <!-- docs-check: needs gpu nvcc -->        and this program
    <!-- docs-check: needs data data/camvid --> a path of the checkout, or ../NAME
    <!-- docs-check: with --max-iters 4 -->    appended to trainings
    <!-- docs-check: replace iter_600 with iter_4 -->
    <!-- docs-check: file configs/street.py --> a python block that is a file
    <!-- docs-check: minutes 20 -->            instead of --minutes
    <!-- docs-check: new environment -->       for installs; with a name after it,
                                               shared by blocks of the document

What needs something that is there is run; nothing else is left out. Commands that
install have to be marked, so that this environment stays as it is: the new one sees
its packages, and what is installed lies before them.
"""
import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

ROOT = Path(__file__).resolve().parents[1]
MARK = re.compile(r'<!-- docs-check: (.*?) *-->$')
FENCE = re.compile(r'^( *)```(\S*)$')
LOOKALIKES = ('sh', 'shell', 'console', 'zsh', 'py', 'python3')
TRAININGS = re.compile(
    r'mim train|tools/(train\.py|dist_train\.sh|slurm_train\.sh)')
INSTALLS = re.compile(r'\b(pip|mim) (un)?install\b')


class DocumentError(ValueError):
    """A marker or fence that cannot be understood."""


class Block(NamedTuple):
    """Code in a document."""
    document: str
    line: int  # of its first line of code, from 1
    language: str
    text: str
    marks: Tuple[str, ...]

    def marked(self, kind: str) -> List[str]:
        """What the marks of a kind say."""
        return [mark[len(kind):].strip() for mark in self.marks
                if mark.split()[0] == kind]


# --- Reading documents -------------------------------------------------------


def blocks(document: str, text: str) -> Iterator[Block]:
    """The bash and python blocks of a document.

    Raises:
        DocumentError: for a fence that is never closed, a language that would
            hide commands, or a marker that is unknown or before no block.
    """
    lines, marks, at = text.splitlines(), [], 0
    while at < len(lines):
        mark, fence = MARK.match(lines[at].strip()), FENCE.match(lines[at])
        if mark:
            marks.append(check_mark(mark[1], f'{document}:{at + 1}'))
        elif fence:
            end = at + 1
            while end < len(lines) and lines[end].strip() != '```':
                end += 1
            if end == len(lines):
                raise DocumentError(f'{document}:{at + 1} is never closed')
            yield from block(document, at, end, lines, tuple(marks))
            marks, at = [], end
        elif lines[at].strip() and marks:
            raise DocumentError(f'{document}:{at + 1} is no block, but a '
                                'docs-check marker is before it')
        at += 1


def block(document: str, start: int, end: int, lines: List[str],
          marks: tuple) -> Iterator[Block]:
    """The block between two fences, if it is one to run."""
    indent, language = FENCE.match(lines[start]).groups()
    if language in LOOKALIKES:
        raise DocumentError(f'{document}:{start + 1} is ```{language}; write '
                            '```bash or ```python, which are run')
    if language in ('bash', 'python'):
        code = '\n'.join(line[len(indent):] for line in lines[start + 1:end])
        if INSTALLS.search(code) and not any(
                mark.startswith('new environment') for mark in marks):
            raise DocumentError(f'{document}:{start + 1} installs; mark it '
                                '<!-- docs-check: new environment -->')
        yield Block(document, start + 2, language, code + '\n', marks)


def check_mark(mark: str, place: str) -> str:
    """The marker, or DocumentError."""
    word, _, rest = mark.partition(' ')
    known = {
        'needs': re.fullmatch(
            r'gpu( \w+)?|network|cluster|data (\.\./)?\w(?!.*\.\.)\S*', rest),
        'with': rest,
        'replace': re.fullmatch(r'.+ with .+', rest),
        'file': re.fullmatch(r'[^/\s]\S*', rest) and '..' not in rest,
        'minutes': re.fullmatch(r'[1-9]\d*', rest),
        'new': re.fullmatch(r'environment( \w+)?', rest),
    }
    if not known.get(word):
        raise DocumentError(f'{place} has the docs-check marker "{mark}", '
                            'which is unknown; see dev/docs_check.py --help')
    return mark


def commands(text: str) -> List[Tuple[int, str]]:
    """(line within the block, command) of a bash block.

    A command ends with its line, unless a backslash or a here-document goes
    on. Comments are left out.
    """
    found, current, start, until = [], [], 0, None
    for number, line in enumerate(text.splitlines()):
        if not current and (not line.strip() or line.lstrip().startswith('#')):
            continue
        if not current:
            start = number
        current.append(line)
        if until is None:
            here = re.search(r'<<-?\s*[\'"]?(\w+)', line)
            until = here[1] if here else None
            done = until is None and not line.endswith('\\')
        else:
            done = line.strip() == until
        if done:
            found.append((start, '\n'.join(current)))
            current, until = [], None
    if current:
        found.append((start, '\n'.join(current)))
    return found


def adapted(command: str, of: Block) -> str:
    """The command as its block's markers want it."""
    for rule in of.marked('replace'):
        old, new = rule.split(' with ', 1)
        command = command.replace(old, new)
    if TRAININGS.search(command):
        command = ' '.join([command, *of.marked('with')])
    return command


# --- What is there -----------------------------------------------------------


def unmet(of: Block, root: Path) -> Optional[str]:
    """The first need of a block that this machine does not meet."""
    for need in of.marked('needs'):
        kind, _, name = need.partition(' ')
        there = dict(
            data=lambda name: (root / name).exists(),
            gpu=has_gpu,
            network=lambda name: has_network(),
            cluster=lambda name: shutil.which('srun') is not None)[kind]
        if not there(name):
            return need
    return None


def has_gpu(program: str = '') -> bool:
    """Whether PyTorch has a GPU, and a program is on PATH."""
    import torch
    return torch.cuda.is_available() and (
        not program or shutil.which(program) is not None)


def has_network() -> bool:
    """Whether the package index that pip asks by default can be reached."""
    try:
        socket.create_connection(('pypi.org', 443), timeout=5).close()
    except OSError:
        return False
    return True


def copy_checkout(root: Path, target: Path, needed: List[str]) -> None:
    """The files that git has or would take, the environment, needed data.

    Data are linked, and only what a document names.
    """
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split('\0')):
        source = root / name
        if source.is_file():  # and not deleted, and no linked environment
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)  # with its time, for make
    (target / '.venv').symlink_to(sys.prefix)
    for name in needed:
        if (root / name).exists() and not (target / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).symlink_to((root / name).resolve())


# --- Running -----------------------------------------------------------------


def new_environment(copy: Path, name: str) -> Path:
    """An environment beside the copy, made once for a name.

    It finds the packages of this one after its own, so that PyTorch is there.
    """
    folder = copy.parent / f'environment-{re.sub("[^A-Za-z0-9]", "-", name)}'
    if not folder.exists():
        venv.create(folder, with_pip=True)
        inner = folder / 'lib' / 'python{}.{}'.format(*sys.version_info)
        ours = [path for path in sys.path if path.endswith('site-packages')]
        (inner / 'site-packages' / 'outer.pth').write_text('\n'.join(ours))
    return folder


def environment(of: Block, copy: Path) -> Dict[str, str]:
    """Of the commands of a block: its Python first on PATH, no other package."""
    env = {k: v for k, v in os.environ.items()
           if k not in ('PYTHONPATH', 'MAKEFLAGS', 'MAKELEVEL', 'VENV')}
    first = copy / '.venv'
    for mark in of.marked('new'):
        name = mark[len('environment '):] or of.line
        first = new_environment(copy, f'{of.document}-{name}')
    path = f'{first / "bin"}{os.pathsep}{env.get("PATH", "")}'
    return {**env, 'PATH': path}


def execute(words: List[str], copy: Path, env: dict, limit: float
            ) -> Tuple[Optional[int], str]:
    """Exit code and output; None for the code when time is up."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            words, cwd=copy, env=env, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # its own group
                process.wait()
        output.seek(0)
        return code, output.read().decode(errors='replace')


class Shell:
    """Commands one by one, with the folder and variables of those before."""

    def __init__(self, of: Block, copy: Path):
        self.copy, self.env = copy, environment(of, copy)
        self.folder = Path(tempfile.mkdtemp(prefix='docs_check_shell_'))
        (self.folder / 'pwd').write_text(str(copy))
        (self.folder / 'env').write_text('')

    def run(self, command: str, limit: float) -> Tuple[Optional[int], str]:
        script = (f'source {self.folder}/env\ncd "$(cat {self.folder}/pwd)"\n'
                  f'{command}\ncode=$?\n'
                  f'pwd > {self.folder}/pwd\nexport -p > {self.folder}/env\n'
                  'exit $code\n')
        return execute(['bash', '-c', script], self.copy, self.env, limit)

    def close(self) -> None:
        shutil.rmtree(self.folder)


def write_file(of: Block, copy: Path) -> Tuple[str, list]:
    """Write a block that is a file; a config is then loaded."""
    path = of.marked('file')[0]
    (copy / path).parent.mkdir(parents=True, exist_ok=True)
    (copy / path).write_text(of.text)
    check = f'compile(open({path!r}).read(), {path!r}, "exec")'
    if re.search(r'^_base_ ?=', of.text, re.M):
        check = ('import mmseg_encstdc; from mmengine.config import Config; '
                 f'Config.fromfile({path!r})')
    return f'[file {path}]', ['python', '-c', check]


def steps(of: Block, copy: Path, shell: Shell) -> Iterator[tuple]:
    """(line, what is shown, function of the limit that runs it)."""
    if of.language == 'bash':
        for offset, command in commands(of.text):
            said = adapted(command, of)
            shown = said if said == command else f'{said}   [shortened]'
            yield (of.line + offset, shown,
                   lambda limit, said=said: shell.run(said, limit))
        return
    shown, words = '[python block]', ['python', '-c', adapted(of.text, of)]
    if of.marked('file'):
        shown, words = write_file(of, copy)
    words[0] = str(copy / '.venv' / 'bin' / 'python')
    yield (of.line, shown,
           lambda limit: execute(words, copy, shell.env, limit))


def run_block(of: Block, root: Path, copy: Path, minutes: float) -> dict:
    """Run one block, printing each command; counts of what happened."""
    need = unmet(of, root)
    counts = dict(ran=0, skipped=0, failed=0)
    limit = 60 * float((of.marked('minutes') or [minutes])[0])
    shell = Shell(of, copy)
    for line, shown, run in steps(of, copy, shell):
        place = f'{of.document}:{line}'
        if need:
            print(f'skip   {place}  (no {need})  {shown}', flush=True)
            counts['skipped'] += 1
            continue
        started = time.monotonic()
        code, output = run(limit)
        seconds = f'{time.monotonic() - started:.1f} s'
        counts['ran'] += 1
        if code == 0:
            print(f'ok     {place}  ({seconds})  {shown}', flush=True)
            continue
        reason = 'time is up' if code is None else f'exit code {code}'
        tail = '\n'.join('    ' + t for t in output.splitlines()[-25:])
        print(f'FAILED {place}  ({seconds}, {reason})  {shown}\n{tail}',
              flush=True)
        counts['failed'] += 1
        break
    shell.close()
    return counts


def documents(names: List[str], root: Path) -> List[Block]:
    """The blocks of the documents, README first.

    Raises:
        DocumentError: see :func:`blocks`.
    """
    paths = [root / name for name in names] or [
        path for path in (root / 'README.md', root / 'README_zh-CN.md')
        if path.exists()] + sorted((root / 'docs').glob('*.md'))
    found = []
    for path in paths:
        if not path.is_file():
            raise DocumentError(f'{path} does not exist')
        found += blocks(str(path.relative_to(root)), path.read_text())
    return found


def check(args: argparse.Namespace, copy: Path) -> int:
    """Run everything; 1 when something failed."""
    found = documents(args.documents, ROOT)
    needed = [need[len('data '):] for of in found
              for need in of.marked('needs') if need.startswith('data ')]
    copy_checkout(ROOT, copy, needed)
    totals = dict(ran=0, skipped=0, failed=0)
    for of in found:
        for key, count in run_block(of, ROOT, copy, args.minutes).items():
            totals[key] += count
    print('{ran} commands ran, {skipped} were skipped, {failed} failed'.format(
        **totals))
    return int(totals['failed'] > 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('documents', nargs='*', help='default: all of them')
    parser.add_argument('--minutes', type=float, default=10,
                        help='limit of each command; default: 10')
    parser.add_argument('--keep', action='store_true',
                        help='do not remove the copy of the checkout')
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix='docs_check_'))
    copy = folder / ROOT.name  # what is beside the checkout is beside it too
    try:
        copy.mkdir()
        sys.exit(check(args, copy))
    except (DocumentError, subprocess.CalledProcessError) as error:
        sys.exit(f'error: {error}')
    finally:
        if args.keep:
            print(f'the copy is {copy}')
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    main()
