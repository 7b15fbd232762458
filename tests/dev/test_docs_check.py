"""What counts as a command in a document, and what may be left out."""
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
tool = SimpleNamespace(**runpy.run_path(str(ROOT / 'dev/docs_check.py')))


def read(text):
    return list(tool.blocks('x.md', text))


def one(*lines, marks=(), language='bash'):
    return tool.Block('x.md', 1, language, '\n'.join(lines) + '\n', marks)


def test_blocks_of_both_languages_have_their_lines():
    found = read('# T\n\n```bash\nls\n```\ntext\n\n```text\nno\n```\n'
                 '1. item\n   ```python\n   if x:\n       y\n   ```\n')
    assert [(b.line, b.language, b.text) for b in found] == [
        (4, 'bash', 'ls\n'), (13, 'python', 'if x:\n    y\n')]


def test_markers_belong_to_the_next_block_alone():
    first, second = read(
        '<!-- docs-check: needs data data/camvid -->\n'
        '<!-- docs-check: with --max-iters 4 -->\n\n```bash\na\n```\n'
        '```bash\nb\n```\n')
    assert first.marked('needs') == ['data data/camvid']
    assert first.marked('with') == ['--max-iters 4']
    assert second.marks == ()


@pytest.mark.parametrize('text, message', [
    ('```bash\nls\n', 'x.md:1 is never closed'),
    ('```sh\nls\n```', 'x.md:1 is ```sh; write ```bash'),
    ('<!-- docs-check: needs patience -->\n```bash\n```', 'marker "needs pat'),
    ('<!-- docs-check: needs data -->\n```bash\n```', 'x.md:1 has the'),
    ('<!-- docs-check: needs data ../../x -->\n```bash\n```', 'unknown'),
    ('```bash\npip install x\n```', 'x.md:1 installs; mark it'),
    ('<!-- docs-check: skip -->\n```bash\n```', 'marker "skip", which is unk'),
    ('<!-- docs-check: file ../x -->\n```bash\n```', 'unknown'),
    ('<!-- docs-check: needs gpu -->\ntext\n', 'x.md:2 is no block'),
])
def test_what_would_hide_commands_is_an_error(text, message):
    with pytest.raises(tool.DocumentError) as caught:
        read(text)
    assert message in str(caught.value)


def test_commands_go_on_after_a_backslash_and_in_a_here_document():
    text = ('# comment\nfirst a \\\n    b\n\ncat > f <<\'END\'\nx \\\n# in it\n'
            'END\nlast # with a comment\n')
    assert tool.commands(text) == [
        (1, 'first a \\\n    b'), (4, "cat > f <<'END'\nx \\\n# in it\nEND"),
        (8, 'last # with a comment')]


def test_options_are_appended_to_trainings_alone():
    block = one(marks=('with --max-iters 4', 'replace iter_600 with iter_4'))
    assert tool.adapted('python tools/train.py c.py', block) == (
        'python tools/train.py c.py --max-iters 4')
    assert tool.adapted('tools/dist_train.sh c.py 2', block).endswith('ters 4')
    assert tool.adapted('python tools/test.py iter_600.pth', block) == (
        'python tools/test.py iter_4.pth')


def test_a_gpu_alone_is_not_every_program(monkeypatch, tmp_path):
    import torch
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert tool.unmet(one(marks=('needs gpu', )), tmp_path) is None
    assert tool.unmet(one(marks=('needs gpu bash', )), tmp_path) is None
    assert tool.unmet(one(marks=('needs gpu nowhere', )), tmp_path) == (
        'gpu nowhere')


def test_what_is_there_is_not_left_out(tmp_path):
    (tmp_path / 'data').mkdir()
    assert tool.unmet(one(marks=('needs data data', )), tmp_path) is None
    assert tool.unmet(one(marks=('needs data no', )), tmp_path) == 'data no'
    assert tool.unmet(one(marks=()), tmp_path) is None


@pytest.fixture
def copy(tmp_path):
    """An empty checkout with this environment."""
    import sys
    (tmp_path / '.venv').symlink_to(sys.prefix)
    (tmp_path / 'mmseg_encstdc').symlink_to(ROOT / 'mmseg_encstdc')
    return tmp_path


def test_a_block_keeps_its_folder_and_variables(copy, capsys):
    lines = ('mkdir inner', 'cd inner', 'export A=3', 'B=4', 'test "$A" = 3',
             'test "$(basename "$PWD")" = inner', 'pwd > here')
    counts = tool.run_block(one(*lines), copy, copy, 1)
    assert counts == dict(ran=7, skipped=0, failed=0)
    assert (copy / 'inner' / 'here').exists()
    again = tool.run_block(one('test -z "$A"', 'test -d inner'), copy, copy, 1)
    assert again['failed'] == 0  # another block begins at the root
    printed = capsys.readouterr().out
    assert printed.count('ok     x.md') == 9


def test_a_failure_ends_its_block_and_shows_the_output(copy, capsys):
    counts = tool.run_block(one('echo why; false', 'true'), copy, copy, 1)
    assert counts == dict(ran=1, skipped=0, failed=1)
    printed = capsys.readouterr().out
    assert 'FAILED x.md:1' in printed and 'exit code 1' in printed
    assert '    why' in printed


def test_installs_have_an_environment_of_their_own(tmp_path):
    checkout = tmp_path / 'checkout'
    checkout.mkdir()
    block = one('python -c "import sys, torch; open(\'where\', \'w\')'
                '.write(sys.prefix)"', marks=('new environment own', ))
    for _ in range(2):  # made once
        assert tool.run_block(block, tmp_path, checkout, 2)['failed'] == 0
    where = (checkout / 'where').read_text()
    assert where == str(tmp_path / 'environment-x-md-own')


def test_time_is_limited(copy, capsys):
    counts = tool.run_block(one('sleep 60'), copy, copy, 0.005)
    assert counts['failed'] == 1 and 'time is up' in capsys.readouterr().out


def test_a_skip_says_what_is_missing(copy, capsys):
    block = one('ls', marks=('needs data data/none', ))
    assert tool.run_block(block, copy, copy, 1)['skipped'] == 1
    assert '(no data data/none)  ls' in capsys.readouterr().out


def test_python_blocks_run_and_files_are_written(copy):
    run = [one("import os", "assert os.path.isdir(\".venv\")",
               language='python'),
           one('x = 1', language='python', marks=('file my/config.py', )),
           one("_base_ = './config.py'", 'y = _base_.x', language='python',
               marks=('file my/next.py', ))]
    for block in run:
        assert tool.run_block(block, copy, copy, 1)['failed'] == 0
    assert (copy / 'my' / 'next.py').read_text().startswith('_base_')
    for wrong in (one('raise SystemExit(3)', language='python'),
                  one('x =', language='python', marks=('file w.py', )),
                  one("_base_ = './no.py'", language='python',
                      marks=('file my/w.py', ))):
        assert tool.run_block(wrong, copy, copy, 1)['failed'] == 1


def test_the_copy_has_the_files_of_git_and_the_data_that_are_named(tmp_path):
    source = tmp_path / 'source'
    for name in ('kept/a.txt', 'new.txt', 'work_dirs/x', 'data/big/1', 'data/o'):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / '.gitignore').write_text('/data/\nwork_dirs/\n')
    subprocess.run(['git', 'init', '-q', source], check=True)
    subprocess.run(['git', '-C', source, 'add', 'kept'], check=True)
    target = tmp_path / 'copies' / 'target'
    target.mkdir(parents=True)
    (tmp_path / 'beside').mkdir()
    tool.copy_checkout(source, target, ['data/big', 'data/none', '../beside'])
    assert (tmp_path / 'copies' / 'beside').is_symlink()
    names = {str(p.relative_to(target)) for p in target.rglob('*')
             if '.venv' not in p.parts}
    assert names >= {'kept/a.txt', 'new.txt', 'data/big'}
    assert (target / 'data' / 'big').is_symlink()
    assert not {'work_dirs', 'data/o', 'data/none'} & names


def test_the_documents_of_the_project_can_be_read():
    assert tool.documents([], ROOT)
