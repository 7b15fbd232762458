"""The operator, the losses and a step of training, on a handful of numbers."""
import json
import os
from functools import partial
from pathlib import Path

import batches
import cv2
import encode_op
import encode_report
import losses
import pytest
import torch
import train_step
from batches import Shape
from mmseg.models.utils.encoding import Encoding
from processes import Contender, Worker

from mmseg_encstdc.compat import OVERRIDE
from mmseg_encstdc.errors import InputError

CPU = torch.device('cpu')
DEVICES = ['cpu', pytest.param('cuda', marks=[
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')])]
SMALL = encode_op.Shape(1, 8, 4, 4, 3)
STDC = 'mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024.py'
ENCNET = 'mmseg::encnet/encnet_r50-d8_4xb4-80k_ade20k-512x512.py'
OURS = Path(__file__).parents[2] / 'configs'
needs_configs = pytest.mark.skipif(
    not train_step.STOCK.is_dir(),
    reason='this mmsegmentation was installed without its configs')


# --- op -------------------------------------------------------------------------


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype, tolerance', [
    (torch.float32, 1e-3), (torch.float16, 1e-2), (torch.bfloat16, 3e-2)])
def test_op_contenders_compute_the_same(dtype, tolerance, device):
    """Stock sums the gradient of x in the type of x, which costs some last bits."""
    device = torch.device(device)
    shape = encode_op.Shape(2, 64, 12, 11, 32)
    found = {name: encode_op.Operator(name, shape, device, dtype)
             for name in encode_op.contenders(device)}
    assert {'stock', 'composite', 'torch'} <= set(found)
    outcomes = {name: (each.forward(), *each.forward_backward())
                for name, each in found.items()}
    for name, values in outcomes.items():
        for value, expected in zip(values, outcomes['torch'], strict=True):
            largest = expected.abs().max()
            assert largest > 0
            error = (value.float() - expected.float()).abs().max() / largest
            assert error <= tolerance, name


@pytest.mark.parametrize('device', DEVICES)
def test_op_row_has_times_bound_and_memory(device):
    shape = encode_op.Shape(1, 64, 64, 64, 32)
    row = encode_op.measure(shape, torch.device(device), torch.float32, 3, True)
    assert row['shape'] == '1x64x64x64x32' and row['skipped'] == {}
    for times in row['times_ms'].values():
        assert 0 < times['forward']['min'] <= times['forward']['median']
        assert times['forward']['median'] < times['forward_backward']['median']
    operations = 7 * 2 * 64 * 64 * 32 * 64
    assert row['products_ms']['forward_backward'] == pytest.approx(
        operations / row['product_gflops'] / 1e6, rel=1e-2)
    assert 3 * 32 < row['memory']['stock'] < 8 * 32  # tensors of 32 times x
    assert 1 <= row['memory']['torch'] < 8


def test_op_goes_on_without_contenders_that_fail(monkeypatch):
    def forward(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(Encoding, 'forward', forward)
    monkeypatch.setattr(encode_op, 'contenders', lambda device: (
        'stock', 'torch', 'triton'))
    row = encode_op.measure(SMALL, CPU, torch.float32, 3, False)
    assert row['skipped'].keys() == {'stock', 'triton'}
    assert row['skipped']['stock'] == 'out of memory'
    assert row['times_ms']['stock'] is None and row['times_ms']['torch']
    text = encode_report.table([row])
    assert '1x8x4x4x3, float32: stock left out, out of memory' in text
    assert 'triton left out, MMSEG_ENCSTDC_BACKEND=triton, but' in text


def test_op_writes_a_result_a_table_and_a_picture(call, results, capsys):
    shapes = ['1x8x4x4x3', '1x8x8x8x3']
    call('op', '--device', 'cpu', '--threads', 1, '--rounds', 3, '--no-memory',
         '--shapes', *shapes)
    rows = json.loads((results / 'encode_cpu_some.json').read_text())['shapes']
    assert [row['shape'] for row in rows] == shapes
    lines = capsys.readouterr().out.splitlines()
    for shape in shapes:
        assert any(line.startswith('|') and f' {shape} ' in line for line in lines)
    picture = results / 'encode_cpu_some.png'
    assert picture.stat().st_size < 100_000
    assert cv2.imread(str(picture)).shape[1] > 800


def test_op_panels_follow_the_longest_sweep():
    rows = [dict(batch=1, channels=8, width=4, height=height, codes=codes)
            for height, codes in ((4, 3), (8, 5), (1, 3), (4, 9), (4, 7))]
    assert [row['count'] for row in encode_report.sweep(rows, 'count', 'codes')
            ] == [4, 16]
    assert [row['codes'] for row in encode_report.sweep(rows, 'codes', 'count')
            ] == [3, 7, 9]


def test_op_leaves_what_was_measured_when_it_is_stopped(
        call, results, monkeypatch, capsys):
    true = encode_op.measure

    def measure(shape, *words):
        if shape != SMALL:
            raise KeyboardInterrupt
        return true(shape, *words)

    monkeypatch.setattr(encode_op, 'measure', measure)
    with pytest.raises(SystemExit) as stopped:
        call('op', '--device', 'cpu', '--rounds', 3, '--name', 'stopped', '--no-memory',
             '--shapes', SMALL, '1x8x4x4x4')
    path = results / 'stopped.json'
    assert stopped.value.code == 130
    assert capsys.readouterr().err == f'stopped; 1 of 2 measurements are in {path}\n'
    assert len(json.loads(path.read_text())['shapes']) == 1


# --- train ----------------------------------------------------------------------


def modules_of(trainer):
    """The files that the classes of a network's parts come from."""
    head = trainer.network.auxiliary_head
    parts = [trainer.network.backbone, trainer.network.decode_head,
             *(head if isinstance(head, torch.nn.ModuleList) else [head])]
    parts += [each.sampler for each in parts if getattr(each, 'sampler', None)]
    return [type(each).__module__.split('.')[0] for each in parts]


@needs_configs
@pytest.mark.parametrize('ours, expected', [(False, 'mmseg'), (True, 'mmseg_encstdc')])
def test_train_runs_the_classes_that_it_says(ours, expected):
    model, shape = train_step.read(STDC, 7)
    assert shape == Shape(12, 512, 1024)
    make = partial(train_step.Trainer, model, ours, STDC, Shape(2, 64, 64), CPU, False)
    with Worker(Contender(make, {OVERRIDE: str(int(ours))}), CPU) as worker:
        found = worker.call(modules_of)
    assert len(found) == 5 + 3 and set(found) == {expected}


@needs_configs
@pytest.mark.parametrize('amp', [False, True])
def test_train_step_learns_and_leaves_no_gradient(amp):
    model, _ = train_step.read(STDC, 7)
    trainer = train_step.Trainer(model, True, STDC, Shape(2, 64, 64), CPU, amp)
    assert not any(isinstance(each, torch.nn.SyncBatchNorm)
                   for each in trainer.network.modules())
    weight = trainer.network.decode_head.conv_seg.weight
    before = weight.detach().clone()
    trainer()
    assert torch.isfinite(weight).all() and not torch.equal(weight, before)
    assert weight.grad is None


def test_train_refuses_other_classes_than_it_says():
    with torch.device('meta'):
        layer = Encoding(2, 3)
    train_step.check_classes(layer, False, 'a.py')
    with pytest.raises(InputError, match='a.py has nothing that'):
        train_step.check_classes(layer, True, 'a.py')
    model, _ = train_step.read(str(OURS / 'stdc1_scenes.py'), None)
    with pytest.raises(InputError, match='made of .*SegHead.* of mmseg_encstdc'):
        train_step.Trainer(model, False, 'a.py', Shape(2, 64, 64), CPU, False)


@needs_configs
@pytest.mark.slow
@pytest.mark.parametrize('device', DEVICES)
def test_train_measures_and_records(device, call, results, capsys):
    call('train', STDC, '--device', device, '--shape', '2x64x64', '--classes', 5,
         '--rounds', 2, '--threads', 1, '--name', 'mine')
    result = json.loads((results / 'mine.json').read_text())
    assert {'device', 'versions', 'commit', 'command'} < set(result)
    assert (result['shape'], result['classes'], result['rounds']) == ('2x64x64', 5, 2)
    assert result['out_of_memory'] == []
    times, memory = result['times_ms'], result['memory_mib']
    for name in ('stock', 'ours'):
        assert 0 < times[name]['min'] <= times[name]['median']
        assert 20 < memory[name] < 500  # gradients alone are 32
    assert result['stock_over_ours']['time'] == pytest.approx(
        times['stock']['median'] / times['ours']['median'], rel=1e-2)
    assert 'stock / ours' in capsys.readouterr().out


# --- losses ---------------------------------------------------------------------


def test_losses_of_encnet_have_the_same_gradients():
    case, shape = losses.CASES['encnet'], Shape(2, 64, 128)
    plain, stock, ours = (losses.LossStep(name, case, shape, CPU)()
                          for name in losses.contenders(CPU))
    assert len(ours) == 2 and ours[0].shape == (2, 150, 8, 16)
    for got, *others in zip(ours, plain, stock):
        for expected in others:
            torch.testing.assert_close(got, expected)


def test_losses_of_stdc_mine_the_same_half_of_the_pixels():
    """Stock divides by all pixels and ours by the hard ones, so scales differ."""
    case, shape = losses.CASES['stdc'], Shape(2, 64, 128)
    steps = {name: losses.LossStep(name, case, shape, CPU)
             for name in losses.contenders(CPU)}
    plain, stock, ours = ([each / each.abs().max() for each in step()]
                          for step in steps.values())
    assert len(ours) == 3
    torch.testing.assert_close(stock, ours, rtol=1e-3, atol=1e-5)
    assert (plain[0] - ours[0]).abs().max() > 1e-2
    labels = steps['ours'].labels[:, 0]
    logits = torch.nn.functional.interpolate(
        steps['ours'].logits[0], labels.shape[1:], mode='bilinear')
    valid = labels != batches.IGNORE
    chosen = logits.softmax(1).gather(1, labels.where(valid, 0).unsqueeze(1))[:, 0]
    assert 0.2 < (chosen[valid] < losses.THRESHOLD).float().mean() < 0.8


def test_losses_measures_and_records(call, results, capsys):
    call('losses', '--quick', '--device', 'cpu', '--case', 'stdc', '--threads', 1,
         '--rounds', 2, '--no-memory')
    result = json.loads((results / 'losses_cpu_stdc_quick.json').read_text())
    case, = result['cases']
    assert (case['classes'], case['heads'], case['shape']) == (19, 3, '2x128x256')
    assert list(case['times_ms']) == ['plain', 'stock', 'ours']
    assert case['ratios']['stock_over_ours']['memory'] is None
    assert 'ours / plain' in capsys.readouterr().out


# --- Mistakes -------------------------------------------------------------------


@pytest.mark.parametrize('words, says', [
    (['op', '--shapes', '2x512'], "'2x512' is no shape; give BxDxHxWxK"),
    (['op', '--shapes', '1x8x4x4x0'], "'1x8x4x4x0' is no shape"),
    (['op', '--shapes', '1x8x4x4x257'], 'has more than 256 codewords'),
    (['op', '--shapes', f'1x{"9" * 5000}x1x1x2'], 'is no shape'),
    (['op', '--device', 'cpu', '--no-memory', '--shapes', '9x50000x50000x500x2'],
     '--shapes 9x50000x50000x500x2 does not fit into the memory'),
    (['op', '--device', 'tpu'], "--device: 'tpu' is not there; give one of cpu"),
    (['op', '--device', 'cuda:99'], "'cuda:99' is not there"),
    (['op', '--rounds', '0'], "must be at least 1 and at most 10000, got '0'"),
    (['op', '--rounds', 'x'], '--rounds: must be at least 1'),
    (['op', '--threads', str(os.cpu_count() + 1)], '--threads: must be at least 1'),
    (['op', '--name', 'a/b'], "--name: 'a/b' must be the name of a file"),
    (['op', '--name', 'a\nb'], "--name: 'a\\nb' must be the name of a file"),
    (['op', '--name', 'a' * 300], 'cannot be written'),
    (['train', 'no.py'], 'config no.py does not exist'),
    (['train', 'mmseg::no.py'], 'no.py does not exist'),
    (['train', OURS / 'stdc1_imagenet.py'], 'has no model.decode_head'),
    (['train', OURS / 'stdc1_scenes.py', '--shape', '2x64'], 'is no shape; give BxHxW'),
    (['train', OURS / 'stdc1_scenes.py', '--classes', '1'],
     '--classes: must be at least 2 and at most 255'),
    (['train', OURS / 'stdc1_scenes.py', '--quick', '--device', 'cpu'],
     "stdc1_scenes.py with MMSegmentation's classes alone: TypeError"),
    (['losses', '--case', 'pspnet'], "invalid choice: 'pspnet'"),
])
def test_a_mistake_ends_with_one_line(words, says, refused):
    assert says in refused(*words)


@pytest.mark.parametrize('in_the_way', ['', 'mine.json', 'mine.png'])
def test_a_result_that_cannot_be_written_is_known_before_measuring(
        in_the_way, refused, results, monkeypatch):
    monkeypatch.setattr(encode_op, 'measure', lambda *_: pytest.fail('measured'))
    if in_the_way:
        (results / in_the_way).mkdir(parents=True)
    else:
        results.write_text('a file')
    line = refused('op', '--device', 'cpu', '--quick', '--name', 'mine')
    assert f'{results / in_the_way} cannot be written' in line
