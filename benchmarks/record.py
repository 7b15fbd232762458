"""Write a measurement with everything needed to repeat it.

python benchmarks/record.py NAME FILE.json COMMAND takes the figures from a file
that COMMAND wrote.
"""
import json
import platform
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

import mmcv
import mmengine
import mmseg
import torch

RESULTS = Path(__file__).resolve().parent / 'results'


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


def commit() -> str:
    """The commit measured, with a + when files were changed since."""
    def git(*words):
        return subprocess.run(['git', *words], cwd=RESULTS.parent,
                              capture_output=True, text=True).stdout.strip()

    return git('rev-parse', '--short', 'HEAD') + (
        '+' if git('status', '--porcelain', '--untracked-files=no') else '')


def write(name: str, figures: dict, command: str = '', kind: str = '') -> Path:
    """Write ``results/NAME.json``; returns its path.

    ``kind`` of device: see :func:`device`.
    """
    RESULTS.mkdir(exist_ok=True)
    record = dict(
        command=command or shlex.join(['python', *sys.argv]),
        device=device(kind),
        versions=dict(
            python=platform.python_version(),
            torch=torch.__version__,
            mmengine=mmengine.__version__,
            mmcv=mmcv.__version__,
            mmsegmentation=mmseg.__version__),
        commit=commit(),
        date=date.today().isoformat(),
        **figures)
    path = RESULTS / f'{name}.json'
    path.write_text(json.dumps(record, indent=1) + '\n')
    return path


if __name__ == '__main__':
    write(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), sys.argv[3])
