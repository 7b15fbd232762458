"""Test which parts of the package import which."""
import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mmseg_encstdc

PACKAGE = Path(mmseg_encstdc.__file__).parent
NAME = PACKAGE.name
# A part may import itself and the parts of earlier lines.
LEVELS = (
    ('errors', 'config_files'),
    ('compat', ),
    ('ops', ),
    ('layers', 'losses', 'backbones'),
    ('heads', ),
    ('segmentors', 'classifiers', 'datasets', 'visualization'),
    ('evaluation', ),
    ('scenes', ),
    ('engine', ),
    ('', ),  # mmseg_encstdc/__init__.py, which registers what is above
    ('convert', 'apis'),
    ('cli', ),
)
LEVEL = {part: i for i, parts in enumerate(LEVELS) for part in parts}
FRAMEWORK = {'mmengine', 'mmcv', 'mmseg'}


def name_of(file):
    """Return the dotted name of a module of the package."""
    parts = file.relative_to(PACKAGE.parent).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


# Without .mim, which has tools in an editable install.
FILES = {name_of(file): file for file in sorted(PACKAGE.rglob('*.py'))
         if '.mim' not in file.parts}


def imported_names(name, file, tree):
    """Yield the dotted names that a module imports, inside functions too."""
    package = name.split('.') if file.name == '__init__.py' else name.split('.')[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[:len(package) + 1 - node.level] if node.level else []
            module = '.'.join(start + (node.module.split('.') if node.module else []))
            yield from (f'{module}.{alias.name}' for alias in node.names)


def imports_of(name, file):
    """Yield the modules of the package, and other names, that a module imports."""
    for found in imported_names(name, file, ast.parse(file.read_text())):
        while found.startswith(f'{NAME}.') and found not in FILES:
            found = found.rpartition('.')[0]  # a name in a module
        yield found


IMPORTS = {name: set(imports_of(name, file)) for name, file in FILES.items()}


def part_of(name):
    """Return the part of the package that a module belongs to."""
    return (name.split('.') + [''])[1]


def internal_imports():
    """Return pairs of a module and a module of the package that it imports."""
    return [(name, found) for name, names in IMPORTS.items() for found in names
            if found == NAME or found.startswith(f'{NAME}.')]


def outside_of(name):
    """Return the names of the libraries that a module imports."""
    return {found.split('.')[0] for found in IMPORTS[name]} - {NAME}


def modules_of(part):
    """Return the modules of a part."""
    return [name for name in IMPORTS if part_of(name) == part]


def test_levels_list_every_part():
    assert {part_of(name) for name in FILES} == set(LEVEL)


def test_imports_of_finds_relative_late_and_plain_imports():
    assert (f'{NAME}.convert.files', NAME) in internal_imports()
    assert (f'{NAME}.compat.configs', f'{NAME}.config_files') in internal_imports()
    assert (f'{NAME}.heads.enc_head', f'{NAME}.layers') in internal_imports()
    assert 'onnx' in outside_of(f'{NAME}.apis.exporting')
    assert 'mmengine' in outside_of(f'{NAME}.compat.logs')


def test_modules_import_only_lower_levels():
    upwards = [
        f'{name} imports {found}' for name, found in internal_imports()
        if part_of(name) != part_of(found)
        and LEVEL[part_of(found)] >= LEVEL[part_of(name)]]
    assert upwards == []


def test_imports_have_no_cycle():
    graph = {name: set() for name in FILES}
    for name, found in internal_imports():
        graph[name].add(found)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail('imports in a circle: ' + ' <- '.join(error.args[1]))


def test_only_cli_imports_argparse():
    readers = {name for name in FILES if 'argparse' in outside_of(name)}
    assert readers == {f'{NAME}.cli'}


def test_no_module_imports_cli():
    assert [name for name, found in internal_imports() if part_of(found) == 'cli'] == []


def test_ops_imports_no_other_part_and_no_framework():
    for name in modules_of('ops'):
        assert not outside_of(name) & FRAMEWORK, name
    assert [found for name, found in internal_imports()
            if part_of(name) == 'ops' != part_of(found)] == []


def test_only_compat_reads_versions():
    asking = {name for name in FILES if outside_of(name) & {'packaging'}
              or 'importlib.metadata' in IMPORTS[name]}
    assert {part_of(name) for name in asking} == {'compat'}
