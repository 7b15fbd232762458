"""The check of the CUDA kernels, with compilers that only talk."""
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / 'tools'), str(ROOT / 'benchmarks')]
import check_kernels  # noqa: E402
import record  # noqa: E402

# Of the real one: what each of these options prints, and a file of PTX.
NVCC = """#!/bin/sh
case "$*" in
    --list-gpu-arch) echo compute_80; echo compute_90 ;;
    --version) echo 'Cuda compilation tools, release 13.0, V13.0.88' ;;
    --dryrun*) echo '#$ TOP=/opt/toolkit/bin/..' >&2 ;;
    *)
        for word; do
            [ "$last" = --keep-dir ] && echo mma.sync >"$word/kernels.ptx"
            last=$word
        done
        echo 'ptxas info : Compiling entry function' >&2
        echo 'ptxas info : 0 bytes spill stores, 0 bytes spill loads' >&2
        echo 'ptxas info : Used 168 registers' >&2 ;;
esac
"""


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """Writes the only programs on the PATH, by name: nvcc, and a g++ that is
    content."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    monkeypatch.setenv('PATH', str(folder))

    def write(**texts):
        for name, text in texts.items():
            path = folder / name.replace('gxx', 'g++')
            path.write_text(text)
            path.chmod(0o755)

    write(nvcc=NVCC, gxx='#!/bin/sh\n')
    return write


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Runs the tool in this process."""
    monkeypatch.setattr(record, 'RESULTS', tmp_path / 'results')

    def call(*words):
        monkeypatch.setattr(
            sys, 'argv', ['tools/check_kernels.py', *map(str, words)])
        check_kernels.main()

    return call


def refusal(call, *words) -> str:
    """The one line with which the tool ends."""
    with pytest.raises(SystemExit) as stopped:
        call(*words)
    assert '\n' not in stopped.value.code
    return stopped.value.code


def test_every_file_is_compiled_for_what_nvcc_knows(programs, call, capsys):
    call()
    lines = capsys.readouterr().out.splitlines()
    for file in (ROOT / 'ops').glob('*.cu'):
        for arch in (80, 90):
            assert any(file.name in line and f' {arch} ' in line
                       for line in lines)
    assert not any(' 75 ' in line or ' 100 ' in line for line in lines)
    assert lines[-1] == 'binding.cpp: syntax is right'


def test_without_nvcc_nothing_is_compiled(programs, call, capsys, tmp_path):
    (tmp_path / 'bin' / 'nvcc').unlink()
    call('--arch', 99)
    assert capsys.readouterr().out == (
        'skipped: the CUDA kernels were not compiled, there is no nvcc\n')


def test_without_gxx_the_binding_is_left_out(programs, call, capsys, tmp_path):
    (tmp_path / 'bin' / 'g++').unlink()
    call('--arch', 80)
    assert capsys.readouterr().out.splitlines()[-1] == (
        'skipped: binding.cpp was not checked, there is no g++')


@pytest.mark.parametrize('arch', [99, -5, 0, 75])
def test_an_architecture_that_nvcc_does_not_know_is_named(arch, programs, call):
    line = refusal(call, '--arch', 80, arch)
    assert line.startswith(f'error: --arch {arch} is not known to ')
    assert line.endswith('give some of 80 90')


@pytest.mark.parametrize('jobs', [0, -1])
def test_no_jobs_are_too_few(jobs, programs, call):
    assert refusal(call, '--jobs', jobs) == (
        f'error: --jobs must be at least 1, got {jobs}')


@pytest.mark.parametrize('words, before, after, says', [
    ([], NVCC, 'no program', 'nvcc cannot be run: OSError'),
    ([], NVCC, '#!/bin/sh\n', 'nvcc --list-gpu-arch names no architecture'),
    ([], 'Used 168', 'Used no', 'nvcc reported no registers of cross_entropy_'),
    ([], 'TOP=', 'BOTTOM=', 'nvcc --dryrun names no toolkit (TOP=)'),
    (['--record'], 'release', 'edition', 'nvcc --version names no release'),
])
def test_an_nvcc_that_is_none_ends_with_one_line(
        words, before, after, says, programs, call):
    programs(nvcc=NVCC.replace(before, after))
    line = refusal(call, *words)
    assert line.startswith('error: ') and says in line


def test_what_does_not_compile_ends_with_what_the_compiler_said(programs, call):
    programs(nvcc=NVCC.replace('*)\n', '*) echo unknown type >&2; exit 1;\n'))
    with pytest.raises(SystemExit) as stopped:
        call('--arch', 90)
    assert stopped.value.code.startswith(
        'error: cross_entropy_bfloat16.cu for sm_90:\n')
    assert 'unknown type' in stopped.value.code
    programs(nvcc=NVCC, gxx='#!/bin/sh\necho unknown type >&2; exit 1')
    with pytest.raises(SystemExit, match='error: binding.cpp:\nunknown type'):
        call()


@pytest.mark.parametrize('before, after, says', [
    (' 0 bytes spill loads', ' 4 bytes spill loads', 'sm_80 spills 4 bytes'),
    ('mma.sync', 'fma', 'sm_80 has no tensor-core instructions'),
])
def test_spills_and_plain_products_are_faults(
        before, after, says, programs, call, capsys):
    programs(nvcc=NVCC.replace(before, after))
    with pytest.raises(SystemExit, match=says):
        call('--arch', 80)
    assert 'encode_float32.cu' in capsys.readouterr().out


def test_only_files_named_without_products_may_have_none():
    row = dict(arch=90, spilled_bytes=0, tensor_core_instructions=0)
    for name in ('encode_float32.cu', 'my_cross_entropy_float32.cu', 'other.cu'):
        assert check_kernels.faults(dict(row, file=name)) == [
            f'{name} for sm_90 has no tensor-core instructions']
    for prefix in check_kernels.WITHOUT_PRODUCTS:
        files = [file.name for file in (ROOT / 'ops').glob(f'{prefix}*.cu')]
        assert files
        for name in files:
            assert check_kernels.faults(dict(row, file=name)) == []
            spilling = dict(row, file=name, spilled_bytes=8)
            assert check_kernels.faults(spilling) == [
                f'{name} for sm_90 spills 8 bytes']


def test_a_record_names_the_release(programs, call, tmp_path):
    call('--record', '--arch', 80)
    result = json.loads((tmp_path / 'results' / 'kernels.json').read_text())
    assert result['nvcc'] == '13.0'
    assert len(result['files']) == len(list((ROOT / 'ops').glob('*.cu')))


def test_a_record_that_cannot_be_written_is_known_first(
        programs, call, tmp_path, monkeypatch):
    monkeypatch.setattr(check_kernels, 'compile_all',
                        lambda *_: pytest.fail('compiled'))
    (tmp_path / 'results').write_text('a file')
    assert 'results cannot be written' in refusal(call, '--record')


def test_control_c_ends_with_one_line(programs, call, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(check_kernels, 'compile_file', stop)
    with pytest.raises(SystemExit) as stopped:
        call('--arch', 80)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == 'stopped\n'
