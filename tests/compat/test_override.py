"""Test replacing MMSegmentation's classes, and keeping them."""
import os
import subprocess
import sys
import textwrap

import pytest
from plugin_scripts import full

from mmseg_encstdc.compat import OVERRIDE

NAMES = ('EncHead', 'FCNHead', 'STDCHead', 'STDCNet', 'STDCContextPathNet')
SHOW = f"""
from mmseg.registry import MODELS, TASK_UTILS
print(*(MODELS.get(name).__module__.split('.')[0] for name in {NAMES}),
      TASK_UTILS.get('OHEMPixelSampler').__module__.split('.')[0])
"""


def show(tmp_path, root, before, override):
    """Run a script that begins with ``before``; return the lines that it prints, and
    the package of each of MMSegmentation's names."""
    script = tmp_path / 'show.py'
    script.write_text(textwrap.dedent(before) + SHOW)
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', str(script)], capture_output=True,
        text=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(root),
                                      OVERRIDE: override})
    lines = done.stdout.splitlines()
    return lines[:-1], lines[-1].split() if lines else done.stderr


@pytest.mark.parametrize('before', [
    'import mmseg_encstdc',
    'import mmseg_encstdc, importlib; importlib.reload(mmseg_encstdc)',
    'import mmseg_encstdc, mmseg.models',
    pytest.param('import mmseg.models, mmseg_encstdc', marks=full),
])
def test_override_replaces_all_names_with_one_line(root, tmp_path, before):
    said, modules = show(tmp_path, root, before, '')
    assert modules == ['mmseg_encstdc'] * 6
    line, = said
    assert 'INFO' in line and all(
        name in line for name in (*NAMES, 'OHEMPixelSampler'))


def test_override_0_keeps_mmsegmentation(root, tmp_path):
    said, modules = show(tmp_path, root, 'import mmseg_encstdc', '0')
    assert modules == ['mmseg'] * 6 and not said


def test_override_rejects_other_value(root, tmp_path):
    _, error = show(tmp_path, root, 'import mmseg_encstdc', 'no')
    assert 'MMSEG_ENCSTDC_OVERRIDE=no is not known; give 1' in error
