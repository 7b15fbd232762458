"""Run scripts in a fresh interpreter, and find out which mmcv is installed."""
import os
import subprocess
import sys
import textwrap

import mmcv.ops
import pytest

from mmseg_encstdc.compat import mmcv_ops

compiled = mmcv.ops.point_sample.__module__ != mmcv_ops.__name__
lite = pytest.mark.skipif(
    compiled, reason='a full mmcv is installed, so its own operators are used')
full = pytest.mark.skipif(
    not compiled, reason='mmcv is installed without its operators')


def run_script(root, folder, text):
    """Run a script in a fresh interpreter; return the words that it prints.

    Assert that the line which lists the replaced classes is printed once.
    """
    script = folder / 'script.py'
    script.write_text(textwrap.dedent(text))
    done = subprocess.run([sys.executable, '-W', 'ignore', str(script)],
                          capture_output=True, text=True, cwd=folder,
                          env={**os.environ, 'PYTHONPATH': str(root)})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    said = [line for line in lines if ' INFO - mmseg_encstdc replaces ' in line]
    assert len(said) == 1
    return ' '.join(line for line in lines if line not in said).split()
