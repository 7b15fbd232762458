"""The documents agree with the code: environment variables, links, names."""
import re

import mmseg_encstdc

SOURCES = ('mmseg_encstdc', 'tools', 'benchmarks', 'dev', 'tests')


def documents(root):
    """Every Markdown file of the repository."""
    folders = [root, root / 'docs', root / 'benchmarks', root / 'configs', root / 'ops']
    return sorted(file for folder in folders for file in folder.glob('*.md'))


def test_environment_page_has_every_variable_of_the_project(root):
    files = [file for folder in SOURCES for file in (root / folder).rglob('*')
             if file.suffix in ('.py', '.sh') and '.mim' not in file.parts]
    variables = {name for file in files
                 for name in re.findall(r'MMSEG_ENCSTDC_[A-Z_]+', file.read_text())}
    page = (root / 'docs' / 'environment.md').read_text()
    assert len(variables) >= 4
    assert {name for name in variables if f'`{name}`' not in page} == set()


def test_documents_link_to_files_that_exist(root):
    links = [(file, target) for file in documents(root)
             for target in re.findall(r'\]\(([^)#]+?)(?:#[^)]*)?\)', file.read_text())
             if '://' not in target]
    assert len(links) > 30
    assert [(file.name, target) for file, target in links
            if not (file.parent / target).exists()] == []


def test_readme_names_everything_that_is_registered(root):
    text = (root / 'README.md').read_text()
    names = [name for _, _, group in (*mmseg_encstdc.NEW, *mmseg_encstdc.REPLACED)
             for name in group]
    assert [name for name in names if f'`{name}`' not in text] == []


def test_changelog_has_the_version(root):
    assert f'## {mmseg_encstdc.__version__}' in (root / 'CHANGELOG.md').read_text()
