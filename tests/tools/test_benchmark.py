"""The benchmark of the Encoding operator, on a handful of numbers."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch

from mmseg_encstdc.errors import InputError
from mmseg_encstdc.ops.backend import VARIABLE

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / 'tools'), str(ROOT / 'benchmarks')]
import benchmark  # noqa: E402
import record  # noqa: E402
from common import backends  # noqa: E402
from encode_op import (  # noqa: E402
    command,
    contenders,
    memory,
    report,
    timing,
)

CPU = torch.device('cpu')
SHAPES = ['1x8x4x4x3', '1x64x64x64x32']
FIELDS = {
    'shape', 'batch', 'channels', 'height', 'width', 'codes', 'dtype',
    'input_bytes', 'copies_of_x', 'times_ms', 'floor_ms', 'products_ms',
    'product_gflops', 'ratios', 'rounds', 'timing', 'memory', 'skipped'
}


@pytest.fixture(scope='module')
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def call(patch, *words):
    """Run the tool in this process."""
    patch.setattr(sys, 'argv', ['tools/benchmark.py', *map(str, words)])
    benchmark.main()


@pytest.fixture(scope='module')
def folder(patch, tmp_path_factory):
    """Where a small run wrote its result; ``printed`` there is its text."""
    folder = tmp_path_factory.mktemp('results')
    patch.setattr(record, 'RESULTS', folder)
    patch.setattr(timing, 'LEAST_SAMPLE', 1e-4)
    with (folder / 'printed').open('w') as printed:
        patch.setattr(sys, 'stdout', printed)
        call(patch, 'op', '--device', 'cpu', '--threads', 1, '--rounds', 4,
             '--name', 'tiny', '--shapes', *SHAPES)
        patch.setattr(sys, 'stdout', sys.__stdout__)
    return folder


@pytest.fixture
def rows(folder):
    return json.loads((folder / 'tiny.json').read_text())['shapes']


def test_the_result_names_what_was_measured_and_how(folder, rows):
    result = json.loads((folder / 'tiny.json').read_text())
    assert {'device', 'versions', 'commit', 'command'} < set(result)
    assert [row['shape'] for row in rows] == SHAPES
    for row in rows:
        assert set(row) == FIELDS
        assert row['skipped'] == {}
        assert row['input_bytes'] == 4 * row['channels'] * row['height'] * row[
            'width']
        assert set(row['rounds']['stock'].values()) <= {3, 4}


def test_every_median_is_positive(rows):
    for row in rows:
        assert set(row['times_ms']) == {'stock', 'torch', 'copy', 'product'}
        for times in [*row['times_ms'].values(), row['floor_ms'],
                      row['products_ms']]:
            assert all(value > 0 for value in times.values())


def test_ratios_and_bounds_follow_from_the_medians(rows):
    for row in rows:
        times, ratios = row['times_ms'], row['ratios']['torch']
        for key in contenders.PASSES:
            near = pytest.approx
            assert ratios['stock_over_ours'][key] == near(
                times['stock'][key] / times['torch'][key], rel=1e-2)
            assert ratios['ours_over_products'][key] == near(
                times['torch'][key] / row['products_ms'][key], rel=1e-2)
        copy = times['copy']['forward']
        assert row['floor_ms']['forward'] == near(copy / 2, rel=1e-2)
        assert row['floor_ms']['forward_backward'] == near(1.5 * copy, rel=1e-2)
        operations = 7 * 2 * row['codes'] * row['input_bytes'] / 4
        assert row['products_ms']['forward_backward'] == near(
            operations / row['product_gflops'] / 1e6, rel=1e-2)


def test_memory_counts_what_stock_expands(rows):
    for row in rows:
        assert set(row['memory']) == {'stock', 'torch'}
        assert all(value >= 0 for value in row['memory'].values())
    stock, ours = rows[-1]['memory'].values()
    assert 3 * 32 < stock < 8 * 32  # tensors of 32 times x
    assert 1 <= ours < 8


def test_the_table_has_a_line_for_each_shape(folder):
    lines = (folder / 'printed').read_text().splitlines()
    for shape in SHAPES:
        assert any(line.startswith('|') and f' {shape} ' in line
                   for line in lines)
    assert len({len(line) for line in lines if line[:1] in '|+'}) == 1


def test_the_plot_is_a_small_picture_and_can_be_drawn_again(
        folder, patch, capsys):
    picture = folder / 'tiny.png'
    assert picture.stat().st_size < 100_000
    assert cv2.imread(str(picture)).shape[1] > 800
    picture.unlink()
    call(patch, 'op', '--plot-only', folder / 'tiny.json')
    assert picture.is_file() and str(picture) in capsys.readouterr().out


def test_panels_follow_the_longest_sweep(rows):
    rows = [{**rows[0], 'height': height, 'codes': codes}
            for height, codes in ((4, 3), (8, 5), (1, 3), (4, 9), (4, 7))]
    assert [row['count'] for row in report.sweep(rows, 'count', 'codes')
            ] == [4, 16]
    assert [row['codes'] for row in report.sweep(rows, 'codes', 'count')
            ] == [3, 7, 9]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16,
                                   torch.float16])
def test_stock_and_ours_compute_the_same(dtype):
    shape = contenders.Shape(2, 64, 12, 11, 32)
    inputs = contenders.make_inputs(shape, CPU, dtype)
    contenders.check_agreement(
        'stock', contenders.outcome('stock', inputs),
        contenders.outcome('torch', inputs), 'here')


def test_contenders_that_disagree_are_not_timed(monkeypatch):
    true = contenders.encode
    monkeypatch.setattr(contenders, 'encode', lambda x, codewords, scale: true(
        x, codewords, 1.1 * scale))
    with pytest.raises(
            RuntimeError, match='stock and torch disagree at 1x8x4x4x3, '
            'torch.float32: encodings differs by .* at most 1e-03'):
        timing.measure(contenders.Shape(1, 8, 4, 4, 3), CPU, torch.float32, 3)


def test_stock_is_left_out_where_memory_is_short(monkeypatch):
    monkeypatch.setattr(memory, 'available', lambda: 10_000)
    row = timing.measure(
        contenders.Shape(1, 8, 4, 4, 3), CPU, torch.float32, 3)
    assert row['times_ms']['stock'] is None
    assert row['ratios']['torch']['stock_over_ours'] is None
    assert 'GB of memory' in row['skipped']['stock']
    assert 'stock left out' in report.table([row])


def test_the_table_and_the_plot_take_a_result_of_a_gpu(rows, tmp_path):
    """There the floor is the bound, and stock may have run out of memory."""
    gpu = []
    for dtype in ('float32', 'bfloat16'):
        for row in rows:
            row = json.loads(json.dumps({**row, 'dtype': dtype}))
            del row['products_ms']
            ratios = row['ratios']['torch']
            ratios['ours_over_floor'] = ratios.pop('ours_over_products')
            for values in (row['times_ms'], row['memory'], row['ratios']):
                values['triton'] = values['cuda'] = values['torch']
            gpu.append(row)
    gpu[1]['times_ms']['stock'] = gpu[1]['memory']['stock'] = None
    gpu[1]['skipped'] = dict(stock='out of memory')
    text = report.table(gpu)
    assert 'stock/triton' in text and 'cuda/floor' in text
    assert f'{SHAPES[1]}, float32: stock left out, out of memory' in text
    report.plot(dict(device='a GPU', shapes=gpu), tmp_path / 'gpu.png')
    assert (tmp_path / 'gpu.png').stat().st_size < 100_000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_gpu_is_timed_by_graphs_on_inputs_out_of_cache(dtype):
    device = torch.device('cuda')
    shape = contenders.Shape(2, 512, 64, 64, 32)
    row = timing.measure(shape, device, dtype, 3)
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    assert row['copies_of_x'] * row['input_bytes'] >= 4 * cache
    for name in contenders.contenders(device):
        assert set(row['timing'][name].values()) == {'graph'}
        assert row['memory'][name] >= 1
    for ratios in row['ratios'].values():
        assert all(value > 0.8 for value in ratios['ours_over_floor'].values())


@pytest.mark.parametrize('before', [None, 'auto'])
def test_forced_sets_the_backend_and_restores_it(monkeypatch, before):
    monkeypatch.delenv(VARIABLE, raising=False)
    if before:
        monkeypatch.setenv(VARIABLE, before)
    for name, expected in (('torch', 'torch'), ('triton', 'triton'),
                           ('stock', before)):
        with backends.forced(name):
            assert os.environ.get(VARIABLE) == expected
        assert os.environ.get(VARIABLE) == before


def test_contenders_are_stock_and_the_backends_that_can_run(monkeypatch):
    missing = dict(cuda='not built')
    monkeypatch.setattr(backends.backend, 'unavailable',
                        lambda operator, name, device: missing.get(name))
    assert contenders.contenders(CPU) == ('stock', 'torch')
    gpu = torch.device('cuda')
    assert contenders.contenders(gpu) == ('stock', 'torch', 'triton')
    missing.clear()
    assert contenders.contenders(gpu) == ('stock', 'torch', 'triton', 'cuda')


def test_kernels_that_fail_or_disagree_are_left_out(monkeypatch):
    monkeypatch.setattr(timing, 'contenders',
                        lambda device: ('stock', 'torch', 'triton', 'cuda'))
    true = timing.outcome

    def outcome(name, inputs):
        if name == 'triton':
            raise RuntimeError('out of registers\nand more')
        values = true('torch', inputs)
        return [2 * value for value in values] if name == 'cuda' else values

    monkeypatch.setattr(timing, 'outcome', outcome)
    row = timing.measure(
        contenders.Shape(1, 8, 4, 4, 3), CPU, torch.float32, 3)
    assert row['skipped']['triton'] == 'out of registers'
    assert row['skipped']['cuda'].startswith('cuda and torch disagree at 1x8x4x4x3')
    assert row['times_ms']['triton'] is None and row['times_ms']['torch']
    assert 'triton left out, out of registers' in report.table([row])


@pytest.mark.parametrize('text', ['2x512', '1x8x4x4x0', '1x8x4x4x257',
                                  '1x8x4x-4x3', 'ax8x4x4x3', '1x8x4x4x2x2',
                                  '99999999999999999999x1x1x1x2',
                                  f'1x{2**31}x1x1x2', f'1x{"9" * 5000}x1x1x2',
                                  '999999999999x999999999999x999999999x1x2'])
def test_a_bad_shape_is_named(text):
    with pytest.raises(InputError, match=f'--shapes {text} .*BxDxHxWxK'):
        contenders.Shape.parse(text)


@pytest.mark.parametrize('words, says', [
    (['--shapes', '2x512'], '--shapes 2x512 is no shape; give BxDxHxWxK'),
    (['--device', 'tpu'], '--device tpu is not known; give cpu or cuda'),
    (['--device', 'cuda:99'], '--device cuda:99 is not there'),
    (['--device', 'cuda:99999999999999'], '--device cuda:99999999999999 is not'),
    (['--device', f'cuda:{"9" * 5000}'], '--device cuda:99999'),
    (['--rounds', '0'], '--rounds must be at least 1 and at most 10000, got 0'),
    (['--rounds', '10001'], '--rounds must be at least 1'),
    (['--threads', '-1'], '--threads must be at least 1 and at most '
     f'{os.cpu_count()}, got -1'),
    (['--threads', os.cpu_count() + 1], '--threads must be at least 1'),
    (['--threads', '99999999999999'], '--threads must be at least 1'),
    (['--name', 'a/b'], "--name 'a/b' must be the name of a file"),
    (['--name', '.'], "--name '.' must be the name of a file"),
    (['--name', '..'], "--name '..' must be the name of a file"),
    (['--name', ''], "--name '' must be the name of a file"),
    (['--name', 'a\nb'], "--name 'a\\nb' must be the name of a file"),
    (['--name', 'a' * 300], '--name must have at most 200 bytes, got 300'),
    (['--plot-only', 'no.json'], '--plot-only no.json'),
    (['--plot-only', ''], "--plot-only '' is no file; give a file that"),
    (['--memory-of', 'nope', '--quick', '--device', 'cpu'],
     '--memory-of nope is none of stock, torch'),
])
def test_a_bad_argument_ends_with_one_line(words, says, patch):
    assert refusal(patch, *words).startswith(f'error: {says}')


def refusal(patch, *words) -> str:
    """The one line with which the tool ends."""
    with pytest.raises(SystemExit) as stopped:
        call(patch, 'op', *words)
    assert '\n' not in stopped.value.code
    return stopped.value.code


@pytest.fixture
def unmeasured(monkeypatch):
    """Fails where anything is measured."""
    monkeypatch.setattr(timing, 'measure', lambda *_: pytest.fail('measured'))


@pytest.mark.parametrize('text', ['100x10000x10000x1000x2',
                                  '1x1x600000x600000x2',
                                  'x'.join([str(2**31 - 1)] * 4 + ['256'])])
@pytest.mark.parametrize('first', [[], ['1x8x4x4x3']])
def test_a_shape_too_large_for_the_memory_is_refused_at_once(
        text, first, patch, unmeasured):
    line = refusal(patch, '--device', 'cpu', '--shapes', *first, text)
    assert line.startswith(f'error: --shapes {text} needs about ')
    assert 'GB of memory' in line and 'GB are available' in line


def test_what_a_shape_needs_is_compared_with_what_there_is(monkeypatch):
    shape = contenders.Shape(2, 512, 64, 64, 32)
    need = memory.own_estimate(shape)
    assert need > 5 * shape.bytes(torch.float32)
    monkeypatch.setattr(memory, 'available', lambda: need)
    memory.check_room(shape, CPU)
    monkeypatch.setattr(memory, 'available', lambda: need - 1)
    with pytest.raises(InputError, match=f'--shapes {shape} needs about 0.1583 GB'):
        memory.check_room(shape, CPU)
    memory.check_room(shape, torch.device('cuda'))  # x is drawn here, no more


def test_the_estimate_holds():
    """For a large x, distances, encodings; in a process that keeps nothing."""
    done = subprocess.run(
        [sys.executable, '-c', PEAK, '2x512x96x96x32', '1x1x500x500x256',
         '1x400000x1x1x16', '200x64x1x1x256'], cwd=ROOT / 'benchmarks',
        env={**os.environ, 'MALLOC_MMAP_THRESHOLD_': '65536',
             'PYTHONPATH': str(ROOT)}, capture_output=True, text=True)
    lines = done.stdout.splitlines()[1:]  # past what the plugin says
    assert len(lines) == 4, done.stderr
    for line in lines:
        peak, estimate = map(int, line.split())
        assert 0.4 * estimate < peak < estimate, lines


PEAK = """
import sys
import torch
from encode_op import memory, timing
from encode_op.contenders import Shape
torch.set_num_threads(1)
timing.LONGEST, memory.available = 0.01, lambda: 0  # without stock
def measure(shape):
    timing.measure(shape, torch.device('cpu'), torch.float32, 1)
measure(Shape(1, 8, 4, 4, 3))
for shape in map(Shape.parse, sys.argv[1:]):
    before = memory.reset_peak()
    measure(shape)
    print(memory.peak() - before, memory.own_estimate(shape))
"""


def test_a_gpu_without_room_is_one_line(patch, monkeypatch):
    def fails(*_):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried ...')

    monkeypatch.setattr(timing, 'measure', fails)
    with pytest.raises(InputError, match='--shapes 1x8x4x4x3 does not fit the '
                       'GPU: .*CUDA out of memory'):
        command.measure_shape(SimpleNamespace(rounds=1),
                              contenders.Shape(1, 8, 4, 4, 3), CPU, 'float32')


def in_the_way_of_the_folder(results):
    results.write_text('a file')
    return results


def in_the_way_of_the_result(results):
    (results / 'mine.json').mkdir(parents=True)
    return results / 'mine.json'


def in_the_way_of_the_plot(results):
    (results / 'mine.png').mkdir(parents=True)
    return results / 'mine.png'


@pytest.mark.parametrize('hinder', [
    in_the_way_of_the_folder, in_the_way_of_the_result, in_the_way_of_the_plot])
def test_a_result_that_cannot_be_written_is_known_before_measuring(
        hinder, patch, monkeypatch, tmp_path, unmeasured):
    monkeypatch.setattr(record, 'RESULTS', tmp_path / 'results')
    path = hinder(tmp_path / 'results')
    line = refusal(patch, '--device', 'cpu', '--quick', '--name', 'mine')
    assert f'{path} cannot be written' in line


def test_the_look_whether_a_file_can_be_written_leaves_it(tmp_path):
    path = tmp_path / 'new' / 'a.json'
    record.check_writable(path)
    assert path.parent.is_dir() and not path.exists()
    path.write_text('kept')
    record.check_writable(path)
    assert path.read_text() == 'kept'


def test_a_result_that_cannot_be_written_any_more_is_one_line(
        monkeypatch, tmp_path):
    monkeypatch.setattr(record, 'RESULTS', tmp_path)
    record.write('mine', dict(a=1))
    (tmp_path / 'other.json').mkdir()
    with pytest.raises(InputError, match='other.json cannot be written'):
        record.write('other', dict(a=1))
    assert json.loads((tmp_path / 'mine.json').read_text())['a'] == 1


@pytest.mark.parametrize('empty', [True, False])
def test_without_git_the_commit_is_unknown(empty, monkeypatch, tmp_path):
    if empty:
        monkeypatch.setenv('PATH', str(tmp_path))
    else:  # git, and no repository
        monkeypatch.setattr(record, '__file__', str(tmp_path / 'record.py'))
        monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
    assert record.commit() == 'unknown'


@pytest.mark.parametrize('value', ['torch', 'nonsense'])
def test_a_backend_that_the_user_chose_is_ignored_and_said_so(
        value, folder, patch, monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, value)
    call(patch, 'op', '--device', 'cpu', '--rounds', 3, '--name', 'ignored',
         '--no-memory', '--no-plot', '--shapes', SHAPES[0])
    assert f'{VARIABLE}={value} is ignored' in capsys.readouterr().out
    assert (folder / 'ignored.json').is_file()
    assert not (folder / 'ignored.png').exists()


def test_a_stop_leaves_what_was_measured(folder, patch, monkeypatch, capsys):
    true = timing.measure

    def measure(shape, *words):
        if str(shape) == SHAPES[1]:
            raise KeyboardInterrupt
        return true(shape, *words)

    monkeypatch.setattr(timing, 'measure', measure)
    with pytest.raises(SystemExit) as stopped:
        call(patch, 'op', '--device', 'cpu', '--rounds', 3, '--name', 'stopped',
             '--no-memory', '--shapes', *SHAPES)
    path = folder / 'stopped.json'
    assert stopped.value.code == 130
    assert capsys.readouterr().err == (
        f'stopped; 1 of 2 measurements are in {path}\n')
    assert len(json.loads(path.read_text())['shapes']) == 1


def test_control_c_ends_the_tool_with_one_line(tmp_path):
    script = ('import signal, sys, record; from pathlib import Path; '
              # Ignored from the start where the tests run in the background.
              'signal.signal(signal.SIGINT, signal.default_int_handler); '
              'record.RESULTS = Path(sys.argv.pop(1)); '
              'import benchmark; benchmark.main()')
    tool = subprocess.Popen(
        [sys.executable, '-c', script, tmp_path, 'op', '--quick', '--device',
         'cpu'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONPATH': f'{ROOT / "tools"}:{ROOT / "benchmarks"}'})
    assert 'mmseg_encstdc replaces' in tool.stdout.readline()
    assert tool.stdout.readline().startswith('2x512x64x64x32')
    time.sleep(0.5)
    tool.send_signal(signal.SIGINT)
    _, errors = tool.communicate(timeout=60)
    assert (tool.returncode, errors) == (130, 'stopped\n')


def test_memory_that_cannot_be_measured_is_one_line(monkeypatch):
    said = SimpleNamespace(returncode=1, stdout='',
                           stderr='a warning\nerror: leave it out\n')
    monkeypatch.setattr(memory.subprocess, 'run', lambda *_, **__: said)
    with pytest.raises(InputError, match='memory of torch at 1x8x4x4x3: leave'):
        memory.in_fresh_process(
            'torch', contenders.Shape(1, 8, 4, 4, 3), 'float32', 1)


def test_the_tool_runs_by_itself():
    done = subprocess.run(
        [sys.executable, 'tools/benchmark.py', 'op', '--device', 'tpu'],
        cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('error: --device tpu')


@pytest.mark.parametrize('text, says', [
    ('{}', 'has no shapes'),
    ('[]', 'has no shapes'),
    ('{"shapes": [{"a": 1}]}', 'is no result of op; give a file'),
    ('{"shapes": 3}', 'is no result of op; give a file'),
    ('{"shapes": "abc"}', 'is no result of op; give a file'),
    ('{"shapes": [3]}', 'is no result of op; give a file'),
    ('{', 'JSONDecodeError'),
])
def test_a_file_of_another_kind_is_no_result(text, says, patch, tmp_path):
    path = tmp_path / 'other.json'
    path.write_text(text)
    line = refusal(patch, '--plot-only', path)
    assert line.startswith(f'error: --plot-only {path}') and says in line
    assert not path.with_suffix('.png').exists()


def test_a_plot_that_cannot_be_written_is_one_line(folder, patch, tmp_path):
    path = tmp_path / 'tiny.json'
    path.write_text((folder / 'tiny.json').read_text())
    path.with_suffix('.png').mkdir()
    assert 'tiny.png cannot be written' in refusal(patch, '--plot-only', path)
