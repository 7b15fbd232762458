"""Test which blocks of a document run, and with which changes."""
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[2]
tool = SimpleNamespace(**runpy.run_path(str(ROOT / 'dev/docs_check.py')))


def read(text):
    return list(tool.blocks('x.md', text))


def one(*lines, marks=(), language='bash'):
    return tool.Block('x.md', 1, language, '\n'.join(lines) + '\n', marks)


def test_blocks_have_line_and_language():
    found = read('# T\n\n```bash\nls\n```\ntext\n\n```text\nno\n```\n'
                 '1. item\n   ```python\n   if x:\n       y\n   ```\n')
    assert [(b.line, b.language, b.text) for b in found] == [
        (4, 'bash', 'ls\n'), (13, 'python', 'if x:\n    y\n')]


def test_blocks_give_markers_to_next_block_only():
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
    ('<!-- docs-check: needs data ../x -->\n```bash\n```', 'unknown'),
    ('```bash\npip install x\n```', 'x.md:1 installs; mark it'),
    ('<!-- docs-check: skip -->\n```bash\n```', 'marker "skip", which is unk'),
    ('<!-- docs-check: file ../x -->\n```bash\n```', 'unknown'),
    ('<!-- docs-check: needs gpu -->\ntext\n', 'x.md:2 is no block'),
])
def test_blocks_rejects_commands_that_would_not_run(text, message):
    with pytest.raises(tool.DocumentError) as caught:
        read(text)
    assert message in str(caught.value)


def test_adapted_appends_options_to_trainings_only():
    block = one('python tools/train.py c.py', 'tools/dist_train.sh c.py \\', '    2',
                'python tools/test.py iter_600.pth',
                marks=('with --max-iters 4', 'replace iter_600 with iter_4'))
    assert tool.adapted(block).splitlines() == [
        'python tools/train.py c.py --max-iters 4', 'tools/dist_train.sh c.py \\',
        '    2 --max-iters 4', 'python tools/test.py iter_4.pth']


def test_unmet_names_missing_gpu_program(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert tool.unmet(one(marks=('needs gpu', )), tmp_path) is None
    assert tool.unmet(one(marks=('needs gpu bash', )), tmp_path) is None
    assert tool.unmet(one(marks=('needs gpu nowhere', )), tmp_path) == (
        'gpu nowhere')


def test_unmet_names_missing_data(tmp_path):
    (tmp_path / 'data').mkdir()
    assert tool.unmet(one(marks=('needs data data', )), tmp_path) is None
    assert tool.unmet(one(marks=('needs data no', )), tmp_path) == 'data no'
    assert tool.unmet(one(marks=()), tmp_path) is None


@pytest.fixture
def copy(tmp_path):
    """Return an empty checkout with this environment."""
    (tmp_path / '.venv').symlink_to(sys.prefix)
    (tmp_path / 'mmseg_encstdc').symlink_to(ROOT / 'mmseg_encstdc')
    return tmp_path


def test_run_block_starts_each_block_in_the_root(copy, capsys):
    lines = ('mkdir inner', 'cd inner', 'export A=3', 'test "$A" = 3', 'pwd > here')
    assert tool.run_block(one(*lines), copy, copy, 1) == 'ok'
    assert (copy / 'inner' / 'here').exists()
    assert tool.run_block(one('test -z "$A"', 'test -d inner'), copy, copy, 1) == 'ok'
    assert capsys.readouterr().out.count('ok      x.md:1') == 2


def test_run_block_ends_at_a_failure_and_shows_the_output(copy, capsys):
    block = one('echo why; false', 'touch later')
    assert tool.run_block(block, copy, copy, 1) == 'FAILED'
    printed = capsys.readouterr().out
    assert 'FAILED  x.md:1' in printed and 'exit code 1' in printed
    assert '    why' in printed and not (copy / 'later').exists()


def test_run_block_makes_new_environment_once(tmp_path):
    checkout = tmp_path / 'checkout'
    checkout.mkdir()
    block = one('python -c "import sys, torch; open(\'where\', \'w\')'
                '.write(sys.prefix)"', marks=('new environment own', ))
    for _ in range(2):  # made once
        assert tool.run_block(block, tmp_path, checkout, 2) == 'ok'
    where = (checkout / 'where').read_text()
    assert where == str(tmp_path / 'environment-x-md-own')


def test_run_block_limits_time(copy, capsys):
    assert tool.run_block(one('sleep 60'), copy, copy, 0.005) == 'FAILED'
    assert 'time is up' in capsys.readouterr().out


def test_run_block_names_unmet_need(copy, capsys):
    block = one('ls', marks=('needs data data/none', ))
    assert tool.run_block(block, copy, copy, 1) == 'skipped'
    assert 'skipped x.md:1  (no data data/none)' in capsys.readouterr().out


def test_run_block_runs_python_and_writes_files(copy):
    run = [one("import os", "assert os.path.isdir(\".venv\")",
               language='python'),
           one('x = 1', language='python', marks=('file my/config.py', )),
           one("_base_ = './config.py'", 'y = _base_.x', language='python',
               marks=('file my/next.py', ))]
    for block in run:
        assert tool.run_block(block, copy, copy, 1) == 'ok'
    assert (copy / 'my' / 'next.py').read_text().startswith('_base_')
    for wrong in (one('raise SystemExit(3)', language='python'),
                  one('x =', language='python', marks=('file w.py', )),
                  one("_base_ = './no.py'", language='python',
                      marks=('file my/w.py', ))):
        assert tool.run_block(wrong, copy, copy, 1) == 'FAILED'


def test_copy_checkout_has_files_of_git_and_needed_data(tmp_path):
    source = tmp_path / 'source'
    for name in ('kept/a.txt', 'new.txt', 'work_dirs/x', 'data/big/1', 'data/o'):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / '.gitignore').write_text('/data/\nwork_dirs/\n')
    subprocess.run(['git', 'init', '-q', source], check=True)
    subprocess.run(['git', '-C', source, 'add', 'kept'], check=True)
    target = tmp_path / 'target'
    target.mkdir()
    tool.copy_checkout(source, target, ['data/big', 'data/none'])
    names = {str(p.relative_to(target)) for p in target.rglob('*')
             if '.venv' not in p.parts}
    assert names >= {'kept/a.txt', 'new.txt', 'data/big'}
    assert (target / 'data' / 'big').is_symlink()
    assert not {'work_dirs', 'data/o', 'data/none'} & names


def test_documents_of_project_can_be_read():
    assert tool.documents([], ROOT)
