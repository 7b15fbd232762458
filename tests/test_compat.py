"""What the plugin makes of the stack below it."""
import importlib
import io
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from types import SimpleNamespace

import mmcv.ops
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from packaging.version import Version

import mmseg_encstdc
from mmseg_encstdc import compat

weights_only_is_default = pytest.mark.skipif(
    Version(torch.__version__) < Version('2.6'),
    reason='torch.load reads any pickle by default before torch 2.6')
compiled = mmcv.ops.point_sample.__module__ != compat.__name__
lite = pytest.mark.skipif(
    compiled, reason='a full mmcv is installed, so its own operators are used')
full = pytest.mark.skipif(
    not compiled, reason='mmcv is installed without its operators')


def run_script(root, folder, text):
    """Words that a script prints in a fresh interpreter.

    The one line that says what the plugin replaces must be there, once.
    """
    script = folder / 'script.py'
    script.write_text(textwrap.dedent(text))
    done = subprocess.run([sys.executable, '-W', 'ignore', str(script)],
                          capture_output=True, text=True, cwd=folder,
                          env={**os.environ, 'PYTHONPATH': str(root)})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    said = [line for line in lines if ' INFO - mmseg_encstdc replaces ' in line]
    assert len(said) == 1
    return ' '.join(line for line in lines if line not in said).split()


# --- mmcv.ops ----------------------------------------------------------------


@lite
def test_mmcv_ops_is_there_whichever_import_comes_first(root, tmp_path):
    printed = run_script(
        root, tmp_path, """
        import importlib
        import mmseg.registry  # as in a config whose imports come first
        import mmseg_encstdc
        from mmseg.registry import MODELS
        import mmcv
        import mmcv.ops
        from mmcv.ops import point_sample, sigmoid_focal_loss
        from mmseg_encstdc import compat
        print(mmcv.ops is mmcv.__dict__['ops'])
        print(point_sample is compat.point_sample)
        print(sigmoid_focal_loss is compat.sigmoid_focal_loss)

        ops = mmcv.ops
        importlib.reload(mmseg_encstdc)
        print(mmcv.ops is ops)
        print(MODELS.get('EncHead') is mmseg_encstdc.heads.EncHead)
        """)
    assert printed == ['True'] * 5


@lite
def test_a_spawned_worker_of_a_program_with_the_plugin_has_it_too(root, tmp_path):
    printed = run_script(
        root, tmp_path, """
        import multiprocessing
        import mmseg_encstdc

        def look_up(queue):
            from mmcv.ops import point_sample
            from mmseg.registry import MODELS
            queue.put((point_sample.__module__, MODELS.get('EncHead').__module__))

        if __name__ == '__main__':
            context = multiprocessing.get_context('spawn')
            queue = context.Queue()
            worker = context.Process(target=look_up, args=(queue, ))
            worker.start()
            print(*queue.get(timeout=60))
            worker.join()
        """)
    assert printed == ['mmseg_encstdc.compat', 'mmseg_encstdc.heads.enc_head']


@lite
def test_another_operator_is_a_missing_module_that_names_the_full_mmcv():
    with pytest.raises(ModuleNotFoundError, match='mmcv.ops.nms .* full mmcv'):
        _ = mmcv.ops.nms
    with pytest.raises(ModuleNotFoundError, match='full mmcv'):
        from mmcv.ops import CrissCrossAttention  # noqa: F401
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('mmcv.ops.nms')


@lite
def test_a_missing_dunder_is_an_attribute_error_so_that_inspection_works():
    with pytest.raises(AttributeError, match='__wrapped__'):
        _ = mmcv.ops.__wrapped__
    assert not hasattr(mmcv.ops, '__file__')


def test_preparing_and_registering_again_changes_nothing():
    from mmseg.registry import MODELS
    ops, head = sys.modules['mmcv.ops'], MODELS.get('EncHead')
    compat.prepare()
    mmseg_encstdc.register()
    assert sys.modules['mmcv.ops'] is ops
    assert MODELS.get('EncHead') is head


def test_a_full_mmcv_keeps_its_own_operators(monkeypatch):
    find_spec = compat.importlib.util.find_spec
    monkeypatch.setattr(
        compat.importlib.util, 'find_spec', lambda name, package=None:
        object() if name == 'mmcv._ext' else find_spec(name, package))
    monkeypatch.delitem(sys.modules, 'mmcv.ops')
    compat.supply_mmcv_ops()
    assert 'mmcv.ops' not in sys.modules


def test_operators_that_are_already_imported_are_left_alone(monkeypatch):
    full = SimpleNamespace()
    monkeypatch.setitem(sys.modules, 'mmcv.ops', full)
    compat.supply_mmcv_ops()
    assert sys.modules['mmcv.ops'] is full


def bilinear(feature, x, y):
    """Value of feature (H, W) at pixel coordinates, zero outside."""
    height, width = feature.shape
    left, top = int(np.floor(x)), int(np.floor(y))
    value = 0.
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(x - column)) * (1 - abs(y - row))
                value += weight * float(feature[row, column])
    return value


@pytest.mark.parametrize('align_corners', [False, True])
def test_point_sample_is_bilinear_interpolation_at_relative_points(align_corners):
    feature, points = torch.randn(2, 3, 4, 5).double(), torch.rand(2, 7, 2).double()
    sampled = compat.point_sample(feature, points, align_corners)
    assert sampled.shape == (2, 3, 7)
    for n in range(2):
        for p, (x, y) in enumerate(points[n].tolist()):
            if align_corners:  # 0 and 1 are the centres of the outer pixels
                column, row = x * 4, y * 3
            else:  # 0 and 1 are the outer edges of the outer pixels
                column, row = x * 5 - .5, y * 4 - .5
            for c in range(3):
                expected = bilinear(feature[n, c], column, row)
                assert sampled[n, c, p].item() == pytest.approx(expected, abs=1e-12)


def test_point_sample_takes_a_grid_of_points():
    feature, points = torch.randn(2, 3, 4, 5), torch.rand(2, 6, 2, 2)
    grid = compat.point_sample(feature, points)
    row = compat.point_sample(feature, points.reshape(2, 12, 2))
    assert grid.shape == (2, 3, 6, 2)
    assert torch.equal(grid.reshape(2, 3, 12), row)


@full
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('shape', [(2, 7, 2), (2, 6, 3, 2)])
def test_point_sample_is_that_of_the_full_mmcv(shape, align_corners):
    feature, points = torch.randn(2, 3, 4, 5), torch.rand(shape)
    assert torch.equal(
        compat.point_sample(feature, points, align_corners),
        mmcv.ops.point_sample(feature, points, align_corners))


@full
def test_the_compiled_operators_work():
    boxes = torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 5.], [6., 6., 9., 9.]])
    kept = mmcv.ops.nms(boxes, torch.tensor([.9, .8, .7]), 0.5)[1]
    assert kept.tolist() == [0, 2]


def focal_loss_by_element(logits, target, gamma, alpha, weight):
    """The paper's equation 5, one element after another."""
    loss = torch.zeros_like(logits)
    for n in range(logits.size(0)):
        for c in range(logits.size(1)):
            p = 1 / (1 + np.exp(-logits[n, c].item()))
            if target[n] == c:
                value = -alpha * (1 - p)**gamma * np.log(p)
            else:
                value = -(1 - alpha) * p**gamma * np.log(1 - p)
            none = target[n] == logits.size(1)
            if weight is not None and not none:
                value *= weight[target[n]].item()
            loss[n, c] = value
    return loss


@pytest.mark.parametrize('weight', [None, [0.5, 2., 3.]])
def test_sigmoid_focal_loss_is_the_formula_of_the_paper(weight):
    logits = torch.randn(6, 3).double() * 3
    target = torch.tensor([0, 1, 2, 3, 1, 0])  # 3 is "none of them"
    weight = None if weight is None else torch.tensor(weight).double()
    expected = focal_loss_by_element(logits, target, 1.5, 0.3, weight)
    arguments = (logits, target, 1.5, 0.3, weight)

    each = compat.sigmoid_focal_loss(*arguments, reduction='none')
    torch.testing.assert_close(each, expected)
    total = compat.sigmoid_focal_loss(*arguments, reduction='sum')
    torch.testing.assert_close(total, expected.sum())
    mean = compat.sigmoid_focal_loss(*arguments)
    torch.testing.assert_close(mean, expected.sum() / 6)


def test_sigmoid_focal_loss_of_sure_predictions_is_finite():
    logits = torch.tensor([[1000., -1000.]], requires_grad=True)
    for target in (0, 1):
        loss = compat.sigmoid_focal_loss(logits, torch.tensor([target]))
        gradient, = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all()


def test_sigmoid_focal_loss_of_no_rows_is_zero():
    empty = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    assert compat.sigmoid_focal_loss(*empty) == 0


def test_sigmoid_focal_loss_names_the_reductions_there_are():
    with pytest.raises(ValueError, match="'none', 'mean' or 'sum', got 'max'"):
        compat.sigmoid_focal_loss(
            torch.zeros(1, 1), torch.zeros(1, dtype=torch.long), reduction='max')


# --- Versions ----------------------------------------------------------------


def test_the_installed_stack_is_accepted():
    assert compat.check_stack() is None


@pytest.fixture(params=['stock', 'fork'])
def rows(request, monkeypatch):
    """What is required, as if just this family's distributions were there."""
    fork = request.param == 'fork'
    monkeypatch.setattr(compat, '_distribution_exists', lambda name: fork)
    for module, (low, _, _) in (compat.FORK if fork else compat.STOCK).items():
        monkeypatch.setattr(sys.modules[module], '__version__', low)
    return compat.FORK if fork else compat.STOCK


def hide(monkeypatch, *modules):
    """Let modules be missing."""
    find_spec = compat.importlib.util.find_spec
    monkeypatch.setattr(
        compat.importlib.util, 'find_spec', lambda name, package=None:
        None if name in modules else find_spec(name, package))


@pytest.mark.parametrize('module', ['mmengine', 'mmcv', 'mmseg'])
def test_a_missing_library_is_one_line_that_says_what_to_install(
        monkeypatch, rows, module):
    hide(monkeypatch, module)
    with pytest.raises(compat.StackError) as caught:
        compat.check_stack()
    message = str(caught.value)
    low, high, install = rows[module]
    assert '\n' not in message
    assert f'needs {module} (>= {low}, < {high}), which is not' in message
    assert f'pip install {install}' in message


@pytest.mark.parametrize('there, missing, install', [
    ((), 'mmengine', 'mmengine==0.10.7'),
    ((), 'mmcv', 'mmcv-lite==2.1.0'),
    ((), 'mmseg', 'mmsegmentation==1.2.2 ftfy regex'),
    (('onedl-mmcv', ), 'mmengine', 'onedl-mmengine==0.10.12'),
    (('onedl-mmsegmentation', ), 'mmcv', 'onedl-mmcv==2.3.6'),
    (('onedl-mmengine', 'onedl-mmcv'), 'mmseg', 'onedl-mmsegmentation==1.4.2'),
])
def test_a_missing_library_completes_the_family_that_is_there(
        monkeypatch, there, missing, install):
    hide(monkeypatch, missing)
    monkeypatch.setattr(compat, '_distribution_exists', there.__contains__)
    assert compat.requirement(missing)[2].startswith(install)


@pytest.mark.parametrize('module, version', [
    ('mmengine', '0.7.0'),
    ('mmengine', '1.0.0'),
    ('mmcv', '1.7.2'),
    ('mmcv', '3.0.0'),
    ('mmseg', '0.30.0'),
    ('mmseg', '2.0.0'),
])
def test_a_version_out_of_range_is_one_line_with_the_accepted_ones(
        monkeypatch, rows, module, version):
    monkeypatch.setattr(sys.modules[module], '__version__', version)
    with pytest.raises(compat.StackError) as caught:
        compat.check_stack()
    message = str(caught.value)
    low, high, install = rows[module]
    assert '\n' not in message
    assert f'{module} >= {low}, < {high}, found {version}' in message
    assert f'pip install {install}' in message


def test_the_lowest_versions_are_accepted(rows):
    assert compat.check_stack() is None


@pytest.mark.parametrize('there, module, version, accepted', [
    ((), 'mmcv', '2.1.0', True),
    ((), 'mmcv', '2.2.0', False),
    (('onedl-mmcv', ), 'mmcv', '2.3.6', True),
    (('onedl-mmcv', ), 'mmcv', '2.1.0', False),
    (('onedl-mmcv', ), 'mmseg', '1.2.2', True),
    (('onedl-mmsegmentation', ), 'mmseg', '1.2.2', False),
])
def test_each_library_has_the_range_of_its_own_family(
        monkeypatch, there, module, version, accepted):
    monkeypatch.setattr(compat, '_distribution_exists', there.__contains__)
    low, high, _ = compat.requirement(module)
    assert (Version(low) <= Version(version) < Version(high)) == accepted


# --- What the fork prints ----------------------------------------------------


def test_the_import_prints_nothing(root, tmp_path):
    assert run_script(root, tmp_path, 'import mmseg_encstdc') == []


def test_only_the_notices_are_left_out_of_what_is_printed(capsys):
    with compat._without_notices():
        print(compat.NOTICES[0])
        print('kept')
    assert capsys.readouterr().out == 'kept\n'


# --- Checkpoints -------------------------------------------------------------


@pytest.fixture
def own_globals():
    """Only the plugin's allow-list, until the end of the test."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    compat.allow_own_checkpoints()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


def message_hub():
    """A hub as training fills it: scalars of each kind, and information."""
    hub = MessageHub('test_compat')
    for step in range(4):
        hub.update_scalar('train/loss', 1. / (step + 1))
        hub.update_scalar('train/count', step)
    hub.update_info('iter', 4)
    hub.update_info('best_score', np.float64(33.4))
    return hub


def saved(content):
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def load(data, **kwargs):
    """What torch.load reads."""
    return torch.load(io.BytesIO(data), **kwargs)


def rewritten(data, old, new):
    """A checkpoint in whose pickle one text stands for another."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as target:
            for name in source.namelist():
                content = source.read(name)
                if name.endswith('data.pkl'):
                    assert old in content
                    content = content.replace(old, new)
                target.writestr(name, content)
    return file.getvalue()


def assert_same_hub(state, hub):
    """Compare a loaded state with the hub that was saved."""
    for name, buffer in hub.log_scalars.items():
        loaded = state['log_scalars'][name]
        for ours, theirs in zip(loaded.data, buffer.data):
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)
        for statistic in ('min', 'max', 'mean', 'current'):
            assert loaded.statistics(statistic) == buffer.statistics(statistic)
    assert state['runtime_info'] == hub.runtime_info


@weights_only_is_default
def test_mmengine_loads_the_training_checkpoint_it_saved(tmp_path, own_globals):
    from mmengine.runner import load_checkpoint, save_checkpoint
    model, hub = torch.nn.Linear(2, 1), message_hub()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(1, 2)).backward()
    optimizer.step()
    path = str(tmp_path / 'iter_4.pth')
    save_checkpoint(
        dict(meta=dict(iter=4, dataset_meta=dict(classes=('a', 'b'))),
             state_dict=model.state_dict(), message_hub=hub.state_dict(),
             optimizer=optimizer.state_dict()), path)

    other = torch.nn.Linear(2, 1)
    checkpoint = load_checkpoint(other, path)
    assert torch.equal(other.weight, model.weight)
    assert checkpoint['meta']['dataset_meta']['classes'] == ('a', 'b')
    assert_same_hub(checkpoint['message_hub'], hub)
    resumed = MessageHub('test_compat_resumed')
    resumed.load_state_dict(checkpoint['message_hub'])
    assert_same_hub(resumed.state_dict(), hub)


@weights_only_is_default
def test_mmengine_does_not_run_what_a_checkpoint_says(tmp_path, own_globals):
    from mmengine.runner.checkpoint import CheckpointLoader
    path, marker = str(tmp_path / 'hostile.pth'), tmp_path / 'marker'
    torch.save(chain_to_eval(marker), path)
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(path)
    assert not marker.exists()


def test_a_loader_with_a_second_try_loses_it(monkeypatch):
    from mmengine.runner import checkpoint
    def twice(file, map_location=None, weights_only=None):
        raise AssertionError
    monkeypatch.setattr(checkpoint, '_safe_torch_load', twice, raising=False)
    compat.keep_checkpoints_safe()
    loaded = checkpoint._safe_torch_load(
        io.BytesIO(saved(torch.ones(2))), map_location='meta')
    assert loaded.device.type == 'meta'


@weights_only_is_default
def test_without_the_allow_list_the_checkpoint_does_not_load(own_globals):
    torch.serialization.clear_safe_globals()
    with pytest.raises(pickle.UnpicklingError):
        load(saved(message_hub().state_dict()))


@weights_only_is_default
def test_every_entry_of_the_allow_list_is_needed(own_globals):
    entries = compat._checkpoint_globals()
    data = saved(message_hub().state_dict())
    spare = []
    for i, entry in enumerate(entries):
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(entries[:i] + entries[i + 1:])
        try:
            load(data)
        except pickle.UnpicklingError:
            continue
        spare.append(entry[1] if isinstance(entry, tuple) else entry)
    this = np.asarray(0).__reduce__()[0].__module__
    other = {'numpy.core.multiarray', 'numpy._core.multiarray'} - {this}
    assert spare == [f'{module}.{name}' for module in other
                     for name in ('_reconstruct', 'scalar')]


@weights_only_is_default
@pytest.mark.parametrize('module', [b'numpy.core.multiarray',
                                    b'numpy._core.multiarray'])
def test_a_checkpoint_of_either_numpy_loads(own_globals, module):
    hub = message_hub()
    this = np.asarray(0).__reduce__()[0].__module__.encode()
    data = rewritten(saved(hub.state_dict()), this + b'\n', module + b'\n')
    assert_same_hub(load(data), hub)


class Call:
    """Pickles as a call, whose function may be the result of another."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __call__(self):
        raise NotImplementedError('exists so that pickle takes it')

    def __reduce__(self):
        return self.function, self.arguments


def through(obj, *names):
    """The pickle of obj.name.name ..."""
    for name in names:
        obj = Call(getattr, obj, name)
    return obj


def chain_to_eval(marker):
    """From HistoryBuffer to eval, by attributes alone."""
    namespace = through(HistoryBuffer, '__init__', '__globals__')
    builtins = Call(through(namespace, 'get'), '__builtins__')
    function = Call(through(builtins, 'get'), 'eval')
    return Call(function, f'open({str(marker)!r}, "w").close()')


@weights_only_is_default
def test_a_checkpoint_that_walks_to_eval_is_refused_before_it_gets_there(
        tmp_path, own_globals):
    data, marker = saved(chain_to_eval(tmp_path / 'marker')), tmp_path / 'marker'
    with pytest.raises(pickle.UnpicklingError):
        load(data)
    assert not marker.exists()
    load(data, weights_only=False)  # the chain itself is sound
    assert marker.exists()


@weights_only_is_default
@pytest.mark.parametrize('content', [
    through(HistoryBuffer, '__init__'),
    through(HistoryBuffer, '__subclasses__'),
    through(HistoryBuffer, 'register_statistics'),
    through(HistoryBuffer, '_statistics_methods'),
    through(HistoryBuffer, 'mean', '__globals__'),
    through(np.ndarray, 'tofile'),
    through(np.ndarray, 'min'),
    through(np.dtype, 'mean'),
    through(getattr, '__globals__'),
    through([], 'append'),
    Call(getattr, HistoryBuffer, 'update', None),
    through(Call(HistoryBuffer, [1.], [1]), 'mean'),
], ids=lambda content: '.'.join(str(a) for a in content.arguments[1:2]))
def test_an_attribute_that_mmengine_does_not_save_is_refused(own_globals, content):
    with pytest.raises(pickle.UnpicklingError, match='asks for attribute'):
        load(saved([content]))


@weights_only_is_default
def test_a_function_that_is_not_on_the_allow_list_is_refused(tmp_path, own_globals):
    data = saved(Call(os.mkdir, str(tmp_path / 'made')))
    with pytest.raises(pickle.UnpicklingError):
        load(data)
    assert not (tmp_path / 'made').exists()


@weights_only_is_default
def test_what_the_allowed_attributes_give_cannot_be_called(own_globals):
    content = Call(through(HistoryBuffer, 'mean'), Call(HistoryBuffer, [1.], [1]))
    assert load(saved(content), weights_only=False) == 1
    with pytest.raises(pickle.UnpicklingError):
        load(saved(content))


@pytest.mark.parametrize('name', ['min', 'max', 'current', 'mean'])
def test_the_four_methods_that_mmengine_saves_are_found(name):
    found = compat.restricted_getattr(HistoryBuffer, name)
    assert found is getattr(HistoryBuffer, name)


def test_the_real_getattr_is_not_on_the_allow_list():
    entries = [entry[0] if isinstance(entry, tuple) else entry
               for entry in compat._checkpoint_globals()]
    assert getattr not in entries
    assert compat.restricted_getattr in entries


def test_before_torch_2_6_nothing_is_allowed(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, '__version__', '2.5.1')
    monkeypatch.setattr(torch.serialization, 'add_safe_globals', calls.append)
    compat.allow_own_checkpoints()
    assert not calls


# --- Replacing MMSegmentation's own names --------------------------------------

NAMES = ('EncHead', 'FCNHead', 'STDCHead', 'STDCNet', 'STDCContextPathNet')
SHOW = f"""
from mmseg.registry import MODELS, TASK_UTILS
print(*(MODELS.get(name).__module__.split('.')[0] for name in {NAMES}),
      TASK_UTILS.get('OHEMPixelSampler').__module__.split('.')[0])
"""


def show(tmp_path, root, before, override):
    """What a script that imports ``before`` prints, and which module has each
    of MMSegmentation's names."""
    script = tmp_path / 'show.py'
    script.write_text(textwrap.dedent(before) + SHOW)
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', str(script)], capture_output=True,
        text=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(root),
                                      compat.OVERRIDE: override})
    lines = done.stdout.splitlines()
    return lines[:-1], lines[-1].split() if lines else done.stderr


@pytest.mark.parametrize('before', [
    'import mmseg_encstdc',
    'import mmseg_encstdc, importlib; importlib.reload(mmseg_encstdc)',
    'import mmseg_encstdc, mmseg.models',
    pytest.param('import mmseg.models, mmseg_encstdc', marks=full),
])
def test_every_name_is_replaced_and_one_line_says_so(root, tmp_path, before):
    said, modules = show(tmp_path, root, before, '')
    assert modules == ['mmseg_encstdc'] * 6
    line, = said
    assert 'INFO' in line and all(
        name in line for name in (*NAMES, 'OHEMPixelSampler'))


def test_with_the_variable_at_0_stock_names_are_left_alone(root, tmp_path):
    said, modules = show(tmp_path, root, 'import mmseg_encstdc', '0')
    assert modules == ['mmseg'] * 6 and not said


def test_another_value_of_the_variable_is_named(root, tmp_path):
    _, error = show(tmp_path, root, 'import mmseg_encstdc', 'no')
    assert 'MMSEG_ENCSTDC_OVERRIDE=no is not known; give 1' in error
