"""Test dev/check_kernels.py with a fake nvcc, and with Triton's compiler."""
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / 'dev'), str(ROOT / 'benchmarks')]
import check_kernels  # noqa: E402
import record  # noqa: E402
from kernel_checks import cuda, triton  # noqa: E402

from mmseg_encstdc.ops import backend  # noqa: E402

FILES = sorted(file.relative_to(ROOT / 'ops').as_posix()
               for file in (ROOT / 'ops').rglob('*.cu'))

# A script that prints what nvcc prints, and writes a file of PTX.
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
    """Write the only programs on PATH, nvcc and g++; return a function for others."""
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
    """Return a function that runs the tool in this process, without Triton."""
    monkeypatch.setattr(record, 'RESULTS', tmp_path / 'results')
    monkeypatch.setattr(check_kernels, 'find_spec', lambda name: None)

    def call(*words):
        monkeypatch.setattr(
            sys, 'argv', ['dev/check_kernels.py', *map(str, words)])
        check_kernels.main()

    return call


def refusal(call, *words) -> str:
    """Return the one line with which the tool ends."""
    with pytest.raises(SystemExit) as stopped:
        call(*words)
    assert '\n' not in stopped.value.code
    return stopped.value.code


# --- nvcc -----------------------------------------------------------------------


def test_cuda_compiles_every_file_for_known_architectures(programs, call, capsys):
    call()
    lines = capsys.readouterr().out.splitlines()
    assert FILES
    for file in FILES:
        for target in ('sm_80', 'sm_90'):
            assert any(f' {file} ' in line and f' {target} ' in line
                       for line in lines)
    assert not any(' sm_75 ' in line or ' sm_100 ' in line for line in lines)
    assert 'binding.cpp: the syntax is right' in lines


def test_cuda_finds_files_in_folders(programs, call, monkeypatch, tmp_path, capsys):
    (tmp_path / 'ops' / 'deep' / 'deeper').mkdir(parents=True)
    (tmp_path / 'ops' / 'deep' / 'deeper' / 'a.cu').touch()
    monkeypatch.setattr(cuda, 'OPS', tmp_path / 'ops')
    call('--arch', 80)
    assert ' deep/deeper/a.cu ' in capsys.readouterr().out


def test_check_kernels_skips_missing_compilers(programs, call, capsys, tmp_path):
    (tmp_path / 'bin' / 'nvcc').unlink()
    call('--arch', 99)
    assert capsys.readouterr().out == (
        'skipped: the CUDA kernels were not compiled, there is no nvcc\n'
        'skipped: the Triton kernels were not compiled, triton is not installed\n')


def test_check_binding_skips_without_gxx(programs, call, capsys, tmp_path):
    (tmp_path / 'bin' / 'g++').unlink()
    call('--arch', 80)
    assert ('skipped: binding.cpp was not checked, there is no g++'
            in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize('arch', [99, -5, 0, 75])
def test_cuda_rejects_unknown_arch(arch, programs, call):
    line = refusal(call, '--arch', 80, arch)
    assert line.startswith(f'error: --arch {arch} is not known to ')
    assert line.endswith('give some of 80 90')


@pytest.mark.parametrize('jobs', [0, -1])
def test_check_kernels_rejects_jobs_below_one(jobs, programs, call):
    assert refusal(call, '--jobs', jobs) == (
        f'error: --jobs must be at least 1, got {jobs}')


@pytest.mark.parametrize('words, before, after, says', [
    ([], NVCC, 'no program', 'nvcc cannot be run: OSError'),
    ([], NVCC, '#!/bin/sh\n', 'nvcc --list-gpu-arch printed nothing like'),
    ([], 'Used 168', 'Used no', 'nvcc reported no registers of '),
    ([], 'TOP=', 'BOTTOM=', 'nvcc --dryrun -c none.cu printed nothing like'),
    (['--record'], 'release', 'edition', 'nvcc --version printed nothing like'),
])
def test_cuda_rejects_other_nvcc(
        words, before, after, says, programs, call):
    programs(nvcc=NVCC.replace(before, after))
    line = refusal(call, *words)
    assert line.startswith('error: ') and says in line


def test_cuda_ends_with_compile_error(programs, call):
    programs(nvcc=NVCC.replace('*)\n', '*) echo unknown type >&2; exit 1;\n'))
    with pytest.raises(SystemExit) as stopped:
        call('--arch', 90)
    assert stopped.value.code.startswith(f'error: {FILES[0]} for sm_90:\n')
    assert 'unknown type' in stopped.value.code
    programs(nvcc=NVCC, gxx='#!/bin/sh\necho unknown type >&2; exit 1')
    with pytest.raises(SystemExit, match='error: binding.cpp:\nunknown type'):
        call()


@pytest.mark.parametrize('before, after, says', [
    (' 0 bytes spill loads', ' 4 bytes spill loads', 'sm_80 spills 4 bytes'),
    ('mma.sync', 'fma', 'sm_80 has no tensor-core instructions'),
])
def test_cuda_reports_spills_and_missing_tensor_cores(
        before, after, says, programs, call, capsys):
    programs(nvcc=NVCC.replace(before, after))
    with pytest.raises(SystemExit) as stopped:
        call('--arch', 80)
    table = capsys.readouterr().out
    for file in FILES:
        assert f'{file} for {says}' in stopped.value.code
        assert f' {file} ' in table


def test_cuda_faults_ignores_gpus_below_tensor_cores():
    row = cuda.Row('a.cu', 'sm_75', 1, 255, 8, None, 0)
    assert cuda.faults(row) == []
    assert len(cuda.faults(row._replace(target='sm_80'))) == 2


def test_record_has_compilers_and_kernels(programs, call, tmp_path):
    call('--record', '--arch', 80)
    result = json.loads((tmp_path / 'results' / 'kernels.json').read_text())
    assert (result['nvcc'], result['triton']) == ('13.0', None)
    assert [row['kernels'] for row in result['kernels']] == FILES


def test_record_checks_file_before_compiling(
        programs, call, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, 'compile_file', lambda *_: pytest.fail('compiled'))
    (tmp_path / 'results').write_text('a file')
    assert 'results cannot be written' in refusal(call, '--record')


def test_check_kernels_ends_with_one_line_at_interrupt(
        programs, call, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cuda, 'compile_file', stop)
    with pytest.raises(SystemExit) as stopped:
        call('--arch', 80)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == 'interrupted\n'


# --- Triton ---------------------------------------------------------------------

needs_triton = pytest.mark.skipif(
    find_spec('triton') is None, reason='needs triton, which is for Linux x86-64')


@pytest.fixture(scope='module')
def compiled():
    """Return rows and faults of broken_kernels for two targets.

    TRITON_INTERPRET, which tests of the operators set, must not reach the compiler.
    """
    import broken_kernels
    operators = {name: triton.Operator(
        'broken_kernels', getattr(broken_kernels, f'{name}_calls'), name != 'copy')
        for name in ('right', 'faulty', 'copy')}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TRITON_INTERPRET', '1')
        before = dict(os.environ)
        found = triton.check(('sm_86', 'gfx942'), 1, operators)
        assert os.environ == before
    return found


def row_of(compiled, kernels, target):
    row, = (each for each in compiled[0]
            if (each.kernels, each.target) == (kernels, target))
    return row


@needs_triton
@pytest.mark.parametrize('target', ['sm_86', 'gfx942'])
def test_triton_reports_figures_of_compiler(compiled, target):
    row = row_of(compiled, 'right: multiply', target)
    assert row.compiled == 1 and row.spilled_bytes == 0
    assert 8 < row.registers <= 255 and row.tensor_core_instructions > 0
    assert 2048 <= row.shared_bytes <= 8192  # of two operands of 2048 bytes
    assert not any(' of right ' in fault for fault in compiled[1])


@needs_triton
def test_triton_compiles_once_per_specialization(compiled):
    assert row_of(compiled, 'copy: copy', 'sm_86').compiled == 3


@needs_triton
@pytest.mark.parametrize('fault', [
    'multiply of plain for sm_86 has no tensor-core instructions',
    'faulty large for sm_86: no kernel has tensor-core instructions',
    'multiply of spilling for sm_86 spills ',
    'transpose of large for sm_86 needs 262144 bytes of shared memory, a block has '
    '101376',
    'transpose of large for gfx942 needs 262144 bytes of shared memory, a block has '
    '65536',
    'multiply of refused for sm_86 does not compile: PTXASError: ptxas ',
    'unknown of unknown for sm_86 does not compile: CompilationError: '
    "NameError('no_such_name is not defined')",
])
def test_triton_names_fault_once_in_one_line(compiled, fault):
    found, = (line for line in compiled[1] if line.startswith(fault))
    assert '\n' not in found


@needs_triton
def test_triton_names_compiler_that_ends_its_process():
    import broken_kernels
    operator = triton.Operator('broken_kernels', broken_kernels.ending_calls, False)
    with pytest.raises(RuntimeError, match='Triton ended its process'):
        triton.check(['sm_90'], 1, dict(ending=operator))


@needs_triton
def test_triton_faults_end_tool_after_table(
        call, programs, monkeypatch, capsys, tmp_path):
    (tmp_path / 'bin' / 'nvcc').unlink()
    asked = []

    def check(targets, jobs):
        asked.extend([targets, jobs])
        return [cuda.Row('encode: a', 'sm_90', 1, 40, 4, 16, 8)], ['a spills', 'b']

    monkeypatch.setattr(triton, 'check', check)
    monkeypatch.setattr(check_kernels, 'find_spec', lambda name: name)
    with pytest.raises(SystemExit, match='^error: a spills\nb$'):
        call('--arch', 90, 100, '--jobs', 3, '--record')
    assert asked == [['sm_90', 'sm_100'], 3]
    assert ' encode: a ' in capsys.readouterr().out
    result = json.loads((tmp_path / 'results' / 'kernels.json').read_text())
    assert result['nvcc'] is None and result['triton'][0].isdigit()


def test_triton_compiles_every_operator_with_kernels():
    assert {name: operator.module for name, operator in triton.OPERATORS.items()} == {
        name: operator.modules['triton']
        for name, operator in backend.OPERATORS.items()
        if 'triton' in operator.modules}
