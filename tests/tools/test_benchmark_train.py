"""The benchmark of training: stock twins of the configs, turns, records."""
import copy
import json
import os
import sys
from pathlib import Path

import mmseg
import pytest
import torch
from mmseg.models.decode_heads.fcn_head import FCNHead
from mmseg.registry import MODELS, TASK_UTILS
from mmseg.structures.sampler.ohem_pixel_sampler import OHEMPixelSampler

from mmseg_encstdc.errors import InputError
from mmseg_encstdc.heads import SegHead

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / 'tools'), str(ROOT / 'benchmarks')]
import benchmark  # noqa: E402
import record  # noqa: E402
from train_step import (  # noqa: E402
    batches,
    command,
    contest,
    loss_paths,
    networks,
    player,
    report,
    stock,
)
from train_step.shapes import Shape  # noqa: E402

CPU = torch.device('cpu')
SMALL = Shape(2, 64, 64)
NO_TWIN = ('local_scenes', 'stdc1_imagenet', 'stdc2_imagenet')
CONFIGS = [path for path in sorted((ROOT / 'configs').glob('*.py'))
           if path.stem not in NO_TWIN]
TINY = [ROOT / f'configs/{name}_scenes.py' for name in ('encnet_r18', 'stdc1')]


def config_of(name):
    return networks.model_config(str(ROOT / f'configs/{name}.py'))


def twins(config, shape=SMALL):
    """Stock and ours."""
    return (stock.build(stock.translate(config, shape).config),
            stock.build(stock.alone(config)))


# --- The stock network -------------------------------------------------------


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_config_has_a_twin_of_stock_parts(path):
    config = networks.model_config(str(path))
    before = copy.deepcopy(config)
    with torch.device('meta'):  # shapes alone
        theirs, ours = twins(config)
        stock.check_is_stock(theirs)
        logits = [model.encode_decode(torch.randn(2, 3, 64, 96),
                                      [dict(img_shape=(64, 96))])
                  for model in (theirs, ours)]
    assert config == before
    size = (2, config['decode_head']['num_classes'], 64, 96)
    assert logits[0].shape == logits[1].shape == size
    shapes = [{key: value.shape for key, value in model.state_dict().items()}
              for model in (theirs, ours)]
    if path.stem.startswith('encnet'):
        assert shapes[0] == shapes[1]
    else:
        other = {key for key in shapes[0].keys() | shapes[1].keys()
                 if shapes[0].get(key) != shapes[1].get(key)}
        assert other == {  # stock has biases, and details of two classes
            'decode_head.conv_seg.bias', 'auxiliary_head.0.conv_seg.bias',
            'auxiliary_head.1.conv_seg.bias', 'auxiliary_head.2.conv_seg.bias',
            'auxiliary_head.2.conv_seg.weight',
            'auxiliary_head.2.fusion_kernel',
            'auxiliary_head.2.laplacian_kernel'}


@pytest.mark.parametrize('path', TINY, ids=lambda path: path.stem)
def test_twins_compute_the_same_logits(path):
    theirs, ours = (each.eval() for each in twins(
        networks.model_config(str(path))))
    theirs.load_state_dict(
        {key: value for key, value in ours.state_dict().items()
         if not key.startswith('auxiliary_head.2')}, strict=False)
    if theirs.decode_head.conv_seg.bias is not None and (
            ours.decode_head.conv_seg.bias is None):
        torch.nn.init.zeros_(theirs.decode_head.conv_seg.bias)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours(images),
                                   rtol=1e-4, atol=1e-5)


def test_nothing_but_a_batch_is_needed_to_build():
    for config in (config_of('encnet_r101s_ade'),
                   dict(type='X', init_cfg=dict(type='Normal', std=0.01))):
        text = str(stock.alone(config))
        assert 'checkpoint' not in text and 'SyncBN' not in text
    assert 'Normal' in text


@pytest.mark.parametrize('name', [
    'encnet/encnet_r50-d8_4xb4-80k_ade20k-512x512',
    'fastfcn/fastfcn_r50-d32_jpu_enc_4xb4-80k_ade20k-512x512',
    'stdc/stdc2_in1k-pre_4xb12-80k_cityscapes-512x1024'])
def test_mmsegmentations_own_configs_have_a_twin_too(name):
    path = Path(mmseg.__file__).parent / '.mim' / 'configs' / f'{name}.py'
    if not path.is_file():
        pytest.skip('this mmsegmentation was installed without its configs')
    config = networks.model_config(str(path), classes=7)
    with torch.device('meta'):
        theirs, ours = twins(config)
    stock.check_is_stock(theirs)
    assert type(ours.decode_head).__module__.startswith('mmseg_encstdc.')
    for model in (theirs, ours):
        heads = [model.decode_head, *(
            model.auxiliary_head if 'stdc' in name else [model.auxiliary_head])]
        assert [head.num_classes for head in heads] == (
            [7, 7, 7, 2] if 'stdc' in name else [7, 7])
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()}


def test_ohem_becomes_the_sampler_of_stock():
    head = stock.build(stock.translate(
        config_of('stdc1_seg75_cityscapes'), Shape(12, 512, 1024)).config
    ).auxiliary_head[0]
    assert type(head) is FCNHead and head.dropout is None
    assert type(head.sampler) is OHEMPixelSampler
    assert head.sampler.thresh == 0.7
    assert head.sampler.min_kept == 512 * 1024 / 16
    counted = dict(config_of('stdc1_scenes')['decode_head'],
                   loss_decode=dict(type='OhemCELoss', min_kept=30))
    translated = stock.translate(counted, Shape(4, 8, 8)).config
    assert translated['sampler']['min_kept'] == 7  # of 4 images


def test_what_stock_has_no_argument_for_is_named():
    dropped = stock.translate(config_of('encnet_r18_scenes'), SMALL).dropped
    assert dropped == ['model.decode_head.dropout_type',
                       'model.auxiliary_head.bias']


def test_a_twin_is_stock_whatever_the_registries_hold(monkeypatch):
    """Also where this package comes to replace more of their names."""
    sampler = type('OHEMPixelSampler', (OHEMPixelSampler, ), dict(
        __module__=f'{stock.OURS}.heads'))
    monkeypatch.setitem(MODELS.module_dict, 'FCNHead', SegHead)
    monkeypatch.setitem(TASK_UTILS.module_dict, 'OHEMPixelSampler', sampler)
    head = dict(type='FCNHead', in_channels=4, channels=4, num_classes=3,
                sampler=dict(type='OHEMPixelSampler', thresh=0.7))
    ours = stock.build(head)
    assert type(ours) is SegHead and type(ours.sampler) is sampler
    theirs = stock.build(stock.translate(head, SMALL).config)
    assert type(theirs) is FCNHead and type(theirs.sampler) is OHEMPixelSampler
    stock.check_is_stock(theirs)
    theirs.sampler = sampler(theirs)
    with pytest.raises(RuntimeError, match='sampler is a OHEMPixelSampler of'):
        stock.check_is_stock(theirs)


def test_a_module_of_ours_is_no_stock():
    ours = stock.build(stock.alone(config_of('encnet_r18_scenes')))
    with pytest.raises(RuntimeError, match='the model is a ChipEncoderDecoder'):
        stock.check_is_stock(ours)


@pytest.mark.parametrize('change, says', [
    (dict(backbone=dict(type='LocalNet')),
     'model.backbone.type LocalNet is of this project'),
    (dict(backbone=dict(type='STDCNet', stdc_type='STDCNet1', norm_cfg=None,
                        out_strides=(2, 8))),
     r'model.backbone.out_strides \(2, 8\) has no counterpart'),
    (dict(decode_head=dict(type='SegHead', loss_decode=[
        dict(type='OhemCELoss'), dict(type='CrossEntropyLoss')])),
     r'model.decode_head.loss_decode\[0\].type OhemCELoss is of this project'),
    (dict(decode_head=dict(type='DetailHead', loss_decode=dict(
        type='BinaryDiceLoss'))),
     'model.decode_head.loss_decode.type BinaryDiceLoss has no counterpart'),
])
def test_a_part_without_a_counterpart_is_named(change, says):
    config = {**config_of('stdc1_scenes'), **change}
    with pytest.raises(InputError, match=says):
        stock.translate(config, SMALL)


# --- What is measured --------------------------------------------------------


def test_labels_are_blocks_with_ignored_ones_and_the_same_each_time():
    first, again = (batches.draw(Shape(2, 72, 100), 5, CPU) for _ in range(2))
    assert torch.equal(first.images, again.images)
    labels = torch.stack([each.gt_sem_seg.data for each in first.samples])
    assert labels.shape == (2, 1, 72, 100)
    assert torch.equal(labels[1], again.samples[1].gt_sem_seg.data)
    assert set(labels.unique().tolist()) == {0, 1, 2, 3, 4, batches.IGNORE}
    assert labels[0, 0, 16:32, 16:32].unique().numel() == 1


@pytest.mark.parametrize('amp', [False, True])
@pytest.mark.parametrize('path', TINY, ids=lambda path: path.stem)
@pytest.mark.parametrize('contender', networks.CONTENDERS)
def test_both_learn(contender, path, amp):
    trainer = networks.Trainer(contender, str(path), '2x64x64', 5, 'cpu', amp)
    assert trainer.model.decode_head.num_classes == 5
    trainer.warm_up()
    weight = trainer.model.decode_head.conv_seg.weight
    assert weight.grad is None
    before = weight.detach().clone()
    trainer.step()
    assert torch.isfinite(weight).all() and not torch.equal(weight, before)
    assert weight.grad.abs().sum() > 0
    assert 'momentum_buffer' in trainer.optimizer.state[weight]


def test_the_shape_is_that_of_the_config():
    path = ROOT / 'configs/stdc1_seg75_cityscapes.py'
    assert networks.shape_of(str(path)) == Shape(16, 512, 1024)


def gradients(contender, case):
    path = loss_paths.LossPath(contender, case, '2x64x128', 'cpu')
    path.warm_up()
    return path, path.step()


def test_the_paths_of_encnet_have_the_same_gradients():
    _, plain = gradients('plain', 'encnet')
    _, theirs = gradients('stock', 'encnet')
    path, ours = gradients('ours', 'encnet')
    assert len(ours) == 2 and ours[0].shape == (2, 150, 8, 16)
    assert path.inputs == 2 * ours[0].nbytes + 2 * 64 * 128 * 8
    for expected, other, got in zip(plain, theirs, ours):
        torch.testing.assert_close(got, 0.4 * expected)  # its weight
        torch.testing.assert_close(got, other)


def test_loss_contenders_on_a_gpu_are_the_backends_that_can_run(monkeypatch):
    monkeypatch.setattr(
        loss_paths, 'available', lambda operator, device: ('torch', 'triton'))
    assert loss_paths.contenders(CPU) == ('plain', 'stock', 'ours')
    assert loss_paths.contenders(torch.device('cuda')) == (
        'plain', 'stock', 'torch', 'triton')


@pytest.mark.parametrize('contender, backend', [('torch', 'torch'), ('ours', None)])
def test_loss_contender_takes_its_backend_in_a_step(monkeypatch, contender, backend):
    monkeypatch.delenv('MMSEG_ENCSTDC_BACKEND', raising=False)
    path = loss_paths.LossPath(contender, 'encnet', '2x64x64', 'cpu')
    true, seen = path.loss, []

    def loss(*arguments):
        seen.append(os.environ.get('MMSEG_ENCSTDC_BACKEND'))
        return true(*arguments)

    path.loss = loss
    path.step()
    assert seen == [backend] * path.heads
    assert 'MMSEG_ENCSTDC_BACKEND' not in os.environ


def test_the_paths_of_stdc_mine_about_half_of_the_pixels():
    for contender in ('plain', 'stock', 'ours'):
        path, found = gradients(contender, 'stdc')
        assert len(found) == 3
        for each in found:
            assert torch.isfinite(each).all() and each.abs().sum() > 0
    logits = torch.nn.functional.interpolate(
        path.logits[0], path.labels.shape[2:], mode='bilinear')
    labels = path.labels[:, 0]
    valid = labels != batches.IGNORE
    right = logits.softmax(1).gather(
        1, labels.where(valid, 0).unsqueeze(1))[:, 0][valid]
    assert 0.2 < (right < 0.7).float().mean() < 0.8


# --- Turns and processes -----------------------------------------------------


class Told:
    """A player that says what its job is; stands for a process."""
    asked = []

    def __init__(self, job, environment={}):
        self.job, self.closed = job, False

    def ask(self, command):
        Told.asked.append((self.job['contender'], command))
        value = self.job.get(command, 1.)
        if isinstance(value, Exception):
            raise value
        return value

    def close(self):
        self.closed = True


@pytest.fixture
def told(monkeypatch):
    """Runs a contest of made-up answers of stock; ours takes a second."""
    monkeypatch.setattr(contest, 'Apart', Told)
    Told.asked.clear()

    def run(**of_stock):
        facts = dict(facts=dict(parameters=1), memory=dict(over=2**20))
        jobs = dict(stock=dict(facts, contender='stock', **of_stock),
                    ours=dict(facts, contender='ours'))
        return contest.contest(jobs, 'cpu', 2, True, '--shape 1x2x3')

    return run


def test_contenders_take_turns_and_change_who_is_first(told):
    figures = told(step=3.)
    steps = [name for name, command in Told.asked if command == 'step']
    assert steps == ['ours', 'stock', 'stock', 'ours']
    assert contest.quotient(figures, 'stock', 'ours') == dict(time=3, memory=1)
    assert figures['memory_mib']['ours'] == dict(over=1)
    assert figures['fallen'] == {}


@pytest.mark.parametrize('command', ['facts', 'warm_up', 'step'])
def test_the_figures_of_one_stay_when_the_other_falls(command, told):
    why = contest.Fallen('killed by signal 9')
    figures = told(**{command: why}, memory=why)
    assert figures['fallen'] == dict(stock='killed by signal 9')
    assert figures['times_ms']['stock'] is figures['memory_mib']['stock'] is None
    assert figures['times_ms']['ours']['median'] == 1000
    ratios = contest.quotient(figures, 'stock', 'ours')
    assert ratios == dict(time=None, memory=None)
    text = report.train_table(dict(
        figures, config='c', shape='1x2x3', parameters={},
        stock_over_ours=ratios))
    assert 'stock: killed by signal 9' in text.splitlines()


def test_when_nobody_lasts_the_shape_is_at_fault(monkeypatch):
    monkeypatch.setattr(contest, 'Apart', Told)
    job = dict(contender='ours', step=contest.Fallen('out of memory'))
    with pytest.raises(InputError, match='--shape 9x9x9 does not fit into the '
                       r'memory \(ours: out of memory\)'):
        contest.contest(dict(ours=job), 'cpu', 2, True, '--shape 9x9x9')


def test_in_one_process_all_take_turns_too():
    """As on a GPU."""
    job = dict(kind='losses', case='stdc', shape='2x64x64', device='cpu')
    jobs = {name: dict(job, contender=name) for name in ('plain', 'ours')}
    figures = contest.contest(jobs, 'cuda', 2, False, 'labels')
    assert figures['facts']['plain'] == figures['facts']['ours']
    assert all(each['min'] > 0 for each in figures['times_ms'].values())


def test_a_process_that_is_killed_has_fallen():
    apart = contest.Apart(dict(kind='train'))
    apart.process.kill()
    with pytest.raises(contest.Fallen, match='killed by signal 9'):
        apart.ask('step')
    apart.close()


def test_a_process_that_ends_otherwise_says_why():
    apart = contest.Apart(dict(kind='train'), dict(PYTHONPATH=os.devnull))
    with pytest.raises(RuntimeError, match='that was measured ended: .* No '
                       "module named 'train_step'"):
        apart.ask('step')
    apart.close()


def raises(error):
    raise error


@pytest.mark.parametrize('error', [
    MemoryError(), torch.cuda.OutOfMemoryError('CUDA out of memory. Tried'),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])
def test_want_of_memory_is_an_answer(error):
    assert player.answer(raises, error) == dict(fallen='out of memory')


def test_input_errors_are_answers_and_others_pass():
    assert player.answer(raises, InputError('no')) == dict(error='no')
    with pytest.raises(InputError, match='no'):
        contest.read(dict(error='no'))
    with pytest.raises(RuntimeError, match='shapes differ'):
        player.answer(raises, RuntimeError('shapes differ'))


def test_spread_is_in_milliseconds():
    assert contest.spread([.003, .001, .002, .005, .004]) == pytest.approx(dict(
        median=3, min=1, lower_quartile=2, upper_quartile=4))
    assert contest.spread([.001])['upper_quartile'] == 1


# --- The command line --------------------------------------------------------


def call(patch, *words):
    """Run the tool in this process."""
    patch.setattr(sys, 'argv', ['tools/benchmark.py', *map(str, words)])
    benchmark.main()


@pytest.fixture
def results(monkeypatch, tmp_path):
    """A folder for results."""
    monkeypatch.setattr(record, 'RESULTS', tmp_path)
    return tmp_path


def test_train_measures_and_records(results, monkeypatch, capsys):
    call(monkeypatch, 'train', TINY[0], '--device', 'cpu', '--shape', SMALL,
         '--rounds', 2, '--threads', 1)
    result = json.loads(
        (results / 'train_cpu_encnet_r18_scenes_2x64x64.json').read_text())
    assert {'device', 'versions', 'commit', 'command'} < set(result)
    assert (result['shape'], result['classes'], result['rounds']) == (
        '2x64x64', 14, 2)
    assert result['parameters']['ours'] == result['parameters']['stock'] > 1e7
    assert result['fallen'] == {}
    times, memory = result['times_ms'], result['memory_mib']
    for name in networks.CONTENDERS:
        assert 0 < times[name]['min'] <= times[name]['median']
        assert 20 < memory[name]['over'] < 500  # gradients alone are 46
    ratio = result['stock_over_ours']
    assert ratio['time'] == pytest.approx(
        times['stock']['median'] / times['ours']['median'], rel=1e-2)
    lines = capsys.readouterr().out.splitlines()
    assert any('stock / ours' in line for line in lines)
    assert len({len(line) for line in lines if line[:1] in '|+'}) == 1


def test_with_a_name_all_networks_go_into_one_file(results, monkeypatch):
    monkeypatch.setattr(command, 'measure', lambda args, config, *_: dict(
        config=config))
    monkeypatch.setattr(report, 'train_table', lambda result: result['config'])
    configs = [str(path) for path in TINY]
    call(monkeypatch, 'train', *configs, '--device', 'cpu', '--quick', '--name',
         'together')
    file, = results.iterdir()
    assert file.name == 'together.json'
    networks_of = json.loads(file.read_text())['networks']
    assert [each['config'] for each in networks_of] == configs


def test_losses_measures_and_records(results, monkeypatch, capsys):
    call(monkeypatch, 'losses', '--quick', '--device', 'cpu', '--case', 'stdc',
         '--threads', 1, '--rounds', 2, '--no-memory')
    result = json.loads((results / 'losses_cpu_stdc_quick.json').read_text())
    case, = result['cases']
    assert (case['classes'], case['heads'], case['shape']) == (
        19, 3, '2x128x256')
    assert case['inputs_mib'] == pytest.approx(
        (3 * 2 * 19 * 16 * 32 * 4 + 2 * 128 * 256 * 8) / 2**20, rel=1e-3)
    times = case['times_ms']
    assert list(times) == ['plain', 'stock', 'ours']
    assert case['ratios']['stock_over_plain']['time'] == pytest.approx(
        times['stock']['median'] / times['plain']['median'], rel=1e-2)
    assert case['ratios']['stock_over_ours']['memory'] is None
    assert 'ours / plain' in capsys.readouterr().out


@pytest.fixture
def unmeasured(monkeypatch):
    """Fails where a process is started."""
    monkeypatch.setattr(contest, 'Apart', lambda *_: pytest.fail('measured'))


SCENES = str(TINY[0])
LOCAL = str(ROOT / 'configs/local_scenes.py')
CLASSIFIER = str(ROOT / 'configs/stdc1_imagenet.py')


@pytest.mark.parametrize('words, says', [
    (['train', 'no.py'], 'config no.py does not exist'),
    (['train', LOCAL], 'model.backbone.type LocalNet is of this project'),
    (['train', SCENES, LOCAL], 'model.backbone.type LocalNet'),
    (['train', CLASSIFIER], f'config {CLASSIFIER} has no model.decode_head'),
    (['train', SCENES, '--shape', '2x64'], '--shape 2x64 is no shape; give BxH'),
    (['train', SCENES, '--shape', '0x64x64'], '--shape 0x64x64 is no shape'),
    (['train', SCENES, '--shape', '65536x65536x65536'],
     '--shape 65536x65536x65536: the batch alone needs'),
    (['train', SCENES, '--shape', '2x999999x64'], '--shape 2x999999x64 is no'),
    (['train', SCENES, '--name', 'a/b'], "--name 'a/b' must be the name"),
    (['train', SCENES, '--classes', '1'], '--classes must be at least 2 and at'),
    (['train', SCENES, '--classes', '256'], '--classes must be at least 2'),
    (['train', SCENES, '--rounds', '0'], '--rounds must be at least 1 and'),
    (['train', SCENES, '--threads', os.cpu_count() + 1], '--threads must be at'),
    (['train', SCENES, '--device', 'tpu'], '--device tpu is not known'),
    (['losses', '--rounds', '0'], '--rounds must be at least 1 and'),
    (['losses', '--device', 'cuda:99'], '--device cuda:99 is not there'),
    (['losses', '--name', '..'], "--name '..' must be the name of a file"),
])
def test_a_bad_argument_ends_with_one_line(
        words, says, monkeypatch, results, unmeasured):
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, *words)
    assert stopped.value.code.startswith(f'error: {says}')
    assert '\n' not in stopped.value.code


def test_a_batch_of_one_is_the_message_of_the_backbone():
    said = player.answer(networks.Trainer('ours', str(TINY[1]), '1x64x64', None,
                                          'cpu', False).step)
    assert 'cannot train on a batch of 1' in said['error']


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('amp', [[], ['--amp']])
def test_a_gpu_is_measured_in_one_process(amp, results, monkeypatch):
    call(monkeypatch, 'train', TINY[1], '--device', 'cuda', '--quick', *amp,
         '--name', 'gpu')
    result = json.loads((results / 'gpu.json').read_text())
    for name in networks.CONTENDERS:
        memory = result['memory_mib'][name]
        assert 0 < memory['over'] < memory['total']
        assert result['times_ms'][name]['median'] > 0
    assert result['stock_over_ours']['total'] > 0
