"""Test that MMEngine's checkpoints load, and that no pickled code runs."""
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from mmseg_encstdc.compat import checkpoints


@pytest.fixture
def own_globals():
    """Allow only this package's globals during the test."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    checkpoints.allow_own_checkpoints()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


def message_hub():
    """Return a message hub as training fills it."""
    hub = MessageHub('test_compat')
    for step in range(4):
        hub.update_scalar('train/loss', 1. / (step + 1))
        hub.update_scalar('train/count', step)
    hub.update_info('iter', 4)
    hub.update_info('best_score', np.float64(33.4))
    return hub


def saved(content):
    """Return the bytes that torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def load(data, **kwargs):
    """Return what torch.load reads from bytes."""
    return torch.load(io.BytesIO(data), **kwargs)


def rewritten(data, old, new):
    """Return a checkpoint with one text of its pickle replaced by another."""
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


def test_mmengine_loads_its_training_checkpoint(tmp_path, own_globals):
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


def test_mmengine_executes_no_pickled_code(tmp_path, own_globals):
    from mmengine.runner.checkpoint import CheckpointLoader
    path, marker = str(tmp_path / 'hostile.pth'), tmp_path / 'marker'
    torch.save(chain_to_eval(marker), path)
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(path)
    assert not marker.exists()


def test_keep_checkpoints_safe_removes_second_load(monkeypatch):
    from mmengine.runner import checkpoint
    def twice(file, map_location=None, weights_only=None):
        raise AssertionError
    monkeypatch.setattr(checkpoint, '_safe_torch_load', twice, raising=False)
    checkpoints.keep_checkpoints_safe()
    loaded = checkpoint._safe_torch_load(
        io.BytesIO(saved(torch.ones(2))), map_location='meta')
    assert loaded.device.type == 'meta'


def test_checkpoint_needs_allowed_globals(own_globals):
    torch.serialization.clear_safe_globals()
    with pytest.raises(pickle.UnpicklingError):
        load(saved(message_hub().state_dict()))


def test_allowed_globals_are_all_needed(own_globals):
    entries = checkpoints._checkpoint_globals()
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


@pytest.mark.parametrize('module', [b'numpy.core.multiarray',
                                    b'numpy._core.multiarray'])
def test_checkpoint_of_either_numpy_loads(own_globals, module):
    hub = message_hub()
    this = np.asarray(0).__reduce__()[0].__module__.encode()
    data = rewritten(saved(hub.state_dict()), this + b'\n', module + b'\n')
    assert_same_hub(load(data), hub)


class Call:
    """Pickle as a call, whose function may be the result of another call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __call__(self):
        raise NotImplementedError('exists so that pickle takes it')

    def __reduce__(self):
        return self.function, self.arguments


def through(obj, *names):
    """Return an object that pickles as obj.name.name ..."""
    for name in names:
        obj = Call(getattr, obj, name)
    return obj


def chain_to_eval(marker):
    """Return a chain of attributes from HistoryBuffer to eval."""
    namespace = through(HistoryBuffer, '__init__', '__globals__')
    builtins = Call(through(namespace, 'get'), '__builtins__')
    function = Call(through(builtins, 'get'), 'eval')
    return Call(function, f'open({str(marker)!r}, "w").close()')


def test_restricted_getattr_stops_chain_to_eval(
        tmp_path, own_globals):
    data, marker = saved(chain_to_eval(tmp_path / 'marker')), tmp_path / 'marker'
    with pytest.raises(pickle.UnpicklingError):
        load(data)
    assert not marker.exists()
    load(data, weights_only=False)  # the chain itself is sound
    assert marker.exists()


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
def test_restricted_getattr_rejects_other_attribute(own_globals, content):
    with pytest.raises(pickle.UnpicklingError, match='asks for attribute'):
        load(saved([content]))


def test_checkpoint_with_other_function_is_refused(tmp_path, own_globals):
    data = saved(Call(os.mkdir, str(tmp_path / 'made')))
    with pytest.raises(pickle.UnpicklingError):
        load(data)
    assert not (tmp_path / 'made').exists()


def test_allowed_attributes_cannot_be_called(own_globals):
    content = Call(through(HistoryBuffer, 'mean'), Call(HistoryBuffer, [1.], [1]))
    assert load(saved(content), weights_only=False) == 1
    with pytest.raises(pickle.UnpicklingError):
        load(saved(content))


@pytest.mark.parametrize('name', ['min', 'max', 'current', 'mean'])
def test_restricted_getattr_returns_history_buffer_methods(name):
    found = checkpoints.restricted_getattr(HistoryBuffer, name)
    assert found is getattr(HistoryBuffer, name)


def test_allowed_globals_exclude_getattr():
    entries = [entry[0] if isinstance(entry, tuple) else entry
               for entry in checkpoints._checkpoint_globals()]
    assert getattr not in entries
    assert checkpoints.restricted_getattr in entries
