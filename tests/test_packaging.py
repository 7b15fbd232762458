"""Test the dependencies that pip gets."""
import re

import pytest

from mmseg_encstdc import compat

tomllib = pytest.importorskip('tomllib', reason='it came with Python 3.11')


@pytest.fixture
def project(root):
    """Return the table ``project`` of pyproject.toml."""
    return tomllib.loads((root / 'pyproject.toml').read_text())['project']


def name_and_range(requirement):
    """Split a requirement into distribution, lowest version and first refused one."""
    return re.match(r'([\w.-]+)(?:>=([\w.]+),<([\w.]+))?', requirement).groups()


def test_dependencies_never_overwrite_installed_stack(project):
    names = {name_and_range(r)[0] for r in project['dependencies']}
    assert not [name for name in names if re.match('mm|onedl', name)]


@pytest.mark.parametrize('extra, rows, names', [
    ('lite', compat.STOCK, {'mmengine': 'mmengine', 'mmcv': 'mmcv-lite',
                            'mmseg': 'mmsegmentation'}),
    ('fork', compat.FORK, compat.DISTRIBUTIONS_OF_FORK),
])
def test_extras_ask_for_accepted_versions(project, extra, rows, names):
    asked = [name_and_range(r) for r in project['optional-dependencies'][extra]]
    wanted = [(names[m], *rows[m][:2]) for m in rows]
    assert [row for row in asked if row[1]] == wanted


@pytest.mark.parametrize('file, rows', [
    ('stack', compat.STOCK), ('fork', compat.FORK), ('full', compat.STOCK)])
def test_requirements_pin_recommended_versions(root, file, rows):
    lines = (root / 'requirements' / f'{file}.txt').read_text().splitlines()
    pins = [line.split()[0] for line in lines if not line.startswith('#')]
    assert len(pins) == len(rows)
    for pin, (_, _, install) in zip(pins, rows.values()):
        assert pin in re.split('[ ,]+', install)
