"""Test which versions of the libraries are accepted, and the messages."""
import importlib.util
import sys

import pytest
from packaging.version import Version

from mmseg_encstdc.compat import versions


def test_check_stack_accepts_installed_versions():
    assert versions.check_stack() is None


@pytest.fixture(params=['stock', 'fork'])
def rows(request, monkeypatch):
    """Return the requirement as if only these distributions were installed."""
    fork = request.param == 'fork'
    monkeypatch.setattr(versions, '_distribution_exists', lambda name: fork)
    for module, (low, _, _) in (versions.FORK if fork else versions.STOCK).items():
        monkeypatch.setattr(sys.modules[module], '__version__', low)
    return versions.FORK if fork else versions.STOCK


def hide(monkeypatch, *modules):
    """Pretend that modules are not installed."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name, package=None:
        None if name in modules else find_spec(name, package))


@pytest.mark.parametrize('module', ['mmengine', 'mmcv', 'mmseg'])
def test_check_stack_names_missing_library(
        monkeypatch, rows, module):
    hide(monkeypatch, module)
    with pytest.raises(versions.StackError) as caught:
        versions.check_stack()
    message = str(caught.value)
    low, high, install = rows[module]
    assert '\n' not in message
    assert f'needs {module} (>= {low}, < {high}), which is not' in message
    assert f'pip install {install}' in message


@pytest.mark.parametrize('there, missing, install', [
    ((), 'mmengine', 'mmengine==0.10.7'),
    ((), 'mmcv', 'mmcv-lite==2.1.0'),
    ((), 'mmseg', 'mmsegmentation==1.2.2 ftfy regex'),
    (('onedl-mmcv', ), 'mmengine', 'onedl-mmengine==0.10.12'),
    (('onedl-mmsegmentation', ), 'mmcv', 'onedl-mmcv==2.3.6'),
    (('onedl-mmengine', 'onedl-mmcv'), 'mmseg', 'onedl-mmsegmentation==1.4.2'),
])
def test_requirement_of_missing_library_follows_installed_fork(
        monkeypatch, there, missing, install):
    hide(monkeypatch, missing)
    monkeypatch.setattr(versions, '_distribution_exists', there.__contains__)
    assert versions.requirement(missing)[2].startswith(install)


@pytest.mark.parametrize('module, version', [
    ('mmengine', '0.7.0'),
    ('mmengine', '1.0.0'),
    ('mmcv', '1.7.2'),
    ('mmcv', '3.0.0'),
    ('mmseg', '0.30.0'),
    ('mmseg', '2.0.0'),
])
def test_check_stack_names_accepted_versions(
        monkeypatch, rows, module, version):
    monkeypatch.setattr(sys.modules[module], '__version__', version)
    with pytest.raises(versions.StackError) as caught:
        versions.check_stack()
    message = str(caught.value)
    low, high, install = rows[module]
    assert '\n' not in message
    assert f'{module} >= {low}, < {high}, found {version}' in message
    assert f'pip install {install}' in message


def test_check_stack_accepts_lowest_versions(rows):
    assert versions.check_stack() is None


@pytest.mark.parametrize('there, module, version, accepted', [
    ((), 'mmcv', '2.1.0', True),
    ((), 'mmcv', '2.2.0', False),
    (('onedl-mmcv', ), 'mmcv', '2.3.6', True),
    (('onedl-mmcv', ), 'mmcv', '2.1.0', False),
    (('onedl-mmcv', ), 'mmseg', '1.2.2', True),
    (('onedl-mmsegmentation', ), 'mmseg', '1.2.2', False),
])
def test_requirement_depends_on_distribution(
        monkeypatch, there, module, version, accepted):
    monkeypatch.setattr(versions, '_distribution_exists', there.__contains__)
    low, high, _ = versions.requirement(module)
    assert (Version(low) <= Version(version) < Version(high)) == accepted
