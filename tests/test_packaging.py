"""What pip is told of the package."""
import re

import pytest

from mmseg_encstdc import compat

tomllib = pytest.importorskip('tomllib', reason='it came with Python 3.11')


@pytest.fixture
def project(root):
    """The table of the project."""
    return tomllib.loads((root / 'pyproject.toml').read_text())['project']


def name_and_range(requirement):
    """A requirement's distribution, lowest version and first refused one."""
    return re.match(r'([\w.-]+)(?:>=([\w.]+),<([\w.]+))?', requirement).groups()


def test_an_installed_stack_is_never_overwritten(project):
    names = {name_and_range(r)[0] for r in project['dependencies']}
    assert not [name for name in names if re.match('mm|onedl', name)]


@pytest.mark.parametrize('extra, rows, names', [
    ('lite', compat.STOCK, {'mmengine': 'mmengine', 'mmcv': 'mmcv-lite',
                            'mmseg': 'mmsegmentation'}),
    ('fork', compat.FORK, compat.DISTRIBUTIONS_OF_FORK),
])
def test_an_extra_asks_for_what_the_plugin_accepts(project, extra, rows, names):
    asked = [name_and_range(r) for r in project['optional-dependencies'][extra]]
    wanted = [(names[m], *rows[m][:2]) for m in rows]
    assert [row for row in asked if row[1]] == wanted


@pytest.mark.parametrize('file, rows', [
    ('stack', compat.STOCK), ('fork', compat.FORK), ('full', compat.STOCK)])
def test_what_is_tested_is_what_the_plugin_recommends(root, file, rows):
    lines = (root / 'requirements' / f'{file}.txt').read_text().splitlines()
    pins = [line.split()[0] for line in lines if not line.startswith('#')]
    assert len(pins) == len(rows)
    for pin, (_, _, install) in zip(pins, rows.values()):
        assert pin in re.split('[ ,]+', install)
