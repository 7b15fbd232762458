"""The benchmark of the Encoding operator, on a handful of numbers."""
import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

from mmseg_encstdc.errors import InputError

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / 'tools'), str(ROOT / 'benchmarks')]
import benchmark  # noqa: E402
import record  # noqa: E402
from encode_op import contenders, memory, report, timing  # noqa: E402

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
                values['cuda'] = values['torch']
            gpu.append(row)
    gpu[1]['times_ms']['stock'] = gpu[1]['memory']['stock'] = None
    gpu[1]['skipped'] = dict(stock='out of memory')
    text = report.table(gpu)
    assert 'stock/cuda' in text and 'cuda/floor' in text
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


def test_the_path_is_forced_and_given_back(monkeypatch):
    monkeypatch.delenv(contenders.PATH, raising=False)
    for before in (None, 'auto'):
        if before:
            monkeypatch.setenv(contenders.PATH, before)
        with contenders.forced('torch'):
            assert contenders.os.environ[contenders.PATH] == 'torch'
        assert contenders.os.environ.get(contenders.PATH) == before


@pytest.mark.parametrize('text', ['2x512', '1x8x4x4x0', '1x8x4x4x257',
                                  '1x8x4x-4x3', 'ax8x4x4x3'])
def test_a_bad_shape_is_named(text):
    with pytest.raises(InputError, match=f'--shapes {text} .*BxDxHxWxK'):
        contenders.Shape.parse(text)


@pytest.mark.parametrize('words, says', [
    (['--shapes', '2x512'], '--shapes 2x512 is no shape; give BxDxHxWxK'),
    (['--device', 'tpu'], '--device tpu is not known; give cpu or cuda'),
    (['--device', 'cuda:99'], '--device cuda:99 is not there'),
    (['--rounds', '0'], '--rounds must be at least 1, got 0'),
    (['--threads', '-1'], '--threads must be at least 1, got -1'),
    (['--name', 'a/b'], '--name a/b must be the name of a file'),
    (['--plot-only', 'no.json'], '--plot-only no.json'),
])
def test_a_bad_argument_ends_with_one_line(words, says, patch):
    with pytest.raises(SystemExit) as stopped:
        call(patch, 'op', *words)
    line = stopped.value.code
    assert line.startswith(f'error: {says}') and '\n' not in line


def test_the_tool_runs_by_itself():
    done = subprocess.run(
        [sys.executable, 'tools/benchmark.py', 'op', '--device', 'tpu'],
        cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('error: --device tpu')


def test_a_file_without_shapes_is_no_result(patch, tmp_path):
    path = tmp_path / 'other.json'
    path.write_text('{}')
    with pytest.raises(SystemExit, match='has no shapes'):
        call(patch, 'op', '--plot-only', path)
