"""Write a measurement with everything needed to repeat it.

python benchmarks/record.py NAME FILE.json COMMAND takes the figures from a file
that COMMAND wrote.
"""
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import List, Optional

import mmcv
import mmengine
import mmseg
import torch

RESULTS = Path(__file__).resolve().parent / 'results'
sys.path.insert(0, str(RESULTS.parents[1]))  # where this is run as a script

from mmseg_encstdc.engine import check_writable as check_folder  # noqa: E402
from mmseg_encstdc.errors import as_input_error  # noqa: E402


def device(kind: str = '') -> str:
    """The GPU's name, or the processor's with its threads.

    ``kind`` is cuda or cpu; default: cuda where there is a GPU.
    """
    if kind != 'cpu' and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            name = line.split(':', 1)[1].strip()
            break
    return f'{name}, {torch.get_num_threads()} threads'


def device_words(device: torch.device) -> List[str]:
    """Return the device in the name of a result: cpu, or the words of the GPU's."""
    if device.type == 'cpu':
        return ['cpu']
    name = torch.cuda.get_device_name(device).lower()
    return [word for word in re.findall('[a-z0-9]+', name) if word != 'nvidia']


def backends() -> List[dict]:
    """Return the rows that ``python -m mmseg_encstdc.ops`` prints for the GPUs."""
    from mmseg_encstdc.ops.__main__ import rows
    header, *others = rows()
    return [dict(zip(header, row)) for row in others if row[1] != 'cpu']


def commit() -> str:
    """The commit measured, with a + when files but results were changed since.

    ``unknown`` where git or its repository is not there.
    """
    head = git('rev-parse', '--short', 'HEAD')
    if not head:
        return 'unknown'
    changed = git('status', '--porcelain', '--untracked-files=no', '--', ':/',
                  ':(top,exclude)benchmarks/results')
    return head + ('+' if changed else '')


def git(*words: str) -> Optional[str]:
    """Return the output of a git command, or None if it fails."""
    try:
        done = subprocess.run(['git', *words], cwd=Path(__file__).parent,
                              capture_output=True, text=True)
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()


def check_writable(path: Path) -> None:
    """Make the folder of a file to write, and leave the file as it is.

    Raises:
        InputError: when it cannot be written.
    """
    check_folder(str(path.parent))
    with as_input_error(f'{path} cannot be written', (OSError, )):
        there = path.exists()
        path.open('a').close()
        if not there:
            path.unlink()


def write(name: str, figures: dict, command: str = '', kind: str = '',
          out: Optional[str] = None) -> Path:
    """Write ``results/NAME.json``; returns its path.

    Args:
        name: of the file.
        figures: to write.
        command: that measured them; default: that of this process.
        kind: of device, see :func:`device`.
        out: file to write the figures alone to, in place of the result.

    Raises:
        InputError: when it cannot be written.
    """
    if out:
        with as_input_error(f'{out} cannot be written', (OSError, )):
            Path(out).write_text(json.dumps(figures, indent=1) + '\n')
        return Path(out)
    return save(name, {**origin(command, kind), **figures})


def origin(command: str = '', kind: str = '') -> dict:
    """Return command, device, versions, commit and date of a measurement."""
    on_gpu = kind != 'cpu' and torch.cuda.is_available()
    return dict(
        command=command or shlex.join(['python', *sys.argv]),
        device=device(kind),
        **(dict(backends=backends()) if on_gpu else {}),
        versions=dict(
            python=platform.python_version(),
            torch=torch.__version__,
            mmengine=mmengine.__version__,
            mmcv=mmcv.__version__,
            mmsegmentation=mmseg.__version__),
        commit=commit(),
        date=date.today().isoformat())


def save(name: str, content: dict) -> Path:
    """Write ``results/NAME.json`` whole or not at all; returns its path.

    Raises:
        InputError: when it cannot be written.
    """
    path, unfinished = RESULTS / f'{name}.json', RESULTS / f'.{os.getpid()}'
    with as_input_error(f'{path} cannot be written', (OSError, )):
        RESULTS.mkdir(exist_ok=True)
        unfinished.write_text(json.dumps(content, indent=1) + '\n')
        os.replace(unfinished, path)  # a stop leaves the old or the new one
    return path


if __name__ == '__main__':
    write(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), sys.argv[3])
