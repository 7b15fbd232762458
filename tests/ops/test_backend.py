"""Test the choice of a backend, its self-check and its messages."""
import ast
import json
import logging
import statistics
import subprocess
import sys
import types

import pytest
import torch
from interpreted_kernels import interpreted, interpreter, source_of

import mmseg_encstdc
from mmseg_encstdc.ops import backend, encode, encode_reference, upsampled_cross_entropy
from mmseg_encstdc.ops.encode import matmul
from mmseg_encstdc.ops.upsampled_cross_entropy import bands

CPU = torch.device('cpu')


@pytest.fixture
def inputs():
    """Draw x (B, D, N), codewords (K, D) and scale (K, )."""
    return torch.randn(2, 5, 9), torch.randn(3, 5), -torch.rand(3)


@pytest.fixture
def loss_inputs():
    """Draw logits (B, C, h, w) and labels (B, H, W)."""
    return torch.randn(1, 4, 5, 6), torch.randint(0, 4, (1, 20, 21))


# --- The variable ---------------------------------------------------------------


@pytest.mark.parametrize('asked', [None, '', 'auto', 'torch'])
def test_choose_takes_torch_on_a_cpu(monkeypatch, inputs, loss_inputs, asked):
    if asked is None:
        monkeypatch.delenv(backend.VARIABLE, raising=False)
    else:
        monkeypatch.setenv(backend.VARIABLE, asked)
    assert backend.choose('encode', *inputs[:2]) is matmul
    assert backend.choose('upsampled_cross_entropy', *loss_inputs) is bands


@pytest.mark.parametrize('asked', ['triton', 'cuda'])
@pytest.mark.parametrize('training', [False, True])
def test_encode_on_cpu_rejects_gpu_backend(
        monkeypatch, inputs, asked, training):
    monkeypatch.setenv(backend.VARIABLE, asked)
    message = f'BACKEND={asked}, but {asked} computes on a GPU and not on cpu'
    with pytest.raises(RuntimeError, match=message):
        encode(*(value.requires_grad_(training) for value in inputs))


def test_choose_without_implementation_is_auto(
        monkeypatch, loss_inputs):
    expected = upsampled_cross_entropy(*loss_inputs)
    monkeypatch.setenv(backend.VARIABLE, 'cuda')
    assert torch.equal(upsampled_cross_entropy(*loss_inputs), expected)
    monkeypatch.setenv(backend.VARIABLE, 'triton')
    with pytest.raises(RuntimeError, match='BACKEND=triton, but triton computes'):
        upsampled_cross_entropy(*loss_inputs)


def test_requested_rejects_unknown_backend(
        monkeypatch, inputs, loss_inputs):
    monkeypatch.setenv(backend.VARIABLE, 'tirton')
    for call in (lambda: encode(*inputs),
                 lambda: encode(inputs[0].requires_grad_(), *inputs[1:]),
                 lambda: upsampled_cross_entropy(*loss_inputs)):
        with pytest.raises(ValueError, match="BACKEND='tirton' names no backend; give "
                           'one of auto, torch, triton, cuda'):
            call()


@pytest.mark.parametrize('missing, name, remedy', [
    ('triton', 'triton', 'Triton is not installed: pip install triton'),
    ('mmseg_encstdc._cuda', 'cuda',
     'the CUDA kernels are not built: pip install --no-build-isolation'),
])
def test_unavailable_names_what_to_install(
        monkeypatch, missing, name, remedy):
    find = backend.find_spec
    monkeypatch.setattr(backend, 'find_spec', lambda module: None
                        if module == missing else find(module))
    backend.load_extension.cache_clear()
    reason = backend.unavailable(
        backend.OPERATORS['encode'], name, torch.device('cuda', 0))
    backend.load_extension.cache_clear()
    assert reason.startswith(remedy)


def test_auto_has_only_backends_with_self_check():
    for name, order in backend.AUTO.items():
        operator = backend.OPERATORS[name]
        assert set(order) <= set(operator.modules)
        assert set(operator.tolerances) == {
            torch.float32, torch.float16, torch.bfloat16}
    assert set(backend.AUTO) == set(backend.OPERATORS)


def test_auto_matches_recorded_gpu_runs(root):
    times = {}
    for file in (root / 'benchmarks' / 'results').glob('encode_*.json'):
        for row in json.loads(file.read_text()).get('shapes', ()):
            for name in set(row['times_ms']) & {'triton', 'cuda'} - set(row['skipped']):
                times.setdefault(name, []).append(
                    row['times_ms'][name]['forward_backward']['median'] /
                    row['times_ms']['torch']['forward_backward']['median'])
    measured = sorted(times, key=lambda name: statistics.median(times[name]))
    order = backend.AUTO['encode']
    if not measured:  # then what has no run on a GPU stays out
        assert order == ('triton', )
    else:
        assert order[0] == measured[0]


# --- The self-check ---------------------------------------------------------------


class Gpu:
    """Stand in for an accelerated implementation of encode, on the CPU.

    Computes with ``change`` applied to one output.
    """

    def __init__(self, change=lambda value: value, of='encodings'):
        self.change, self.of, self.calls = change, of, 0

    def why_not(self, x, codewords):
        return 'x is float64' if x.dtype == torch.float64 else None

    def forward(self, *inputs):
        self.calls += 1
        out = matmul.forward(*inputs)
        return self.change(out) if self.of == 'encodings' else out

    def backward(self, *inputs):
        names = ('grad_x', 'grad_codewords', 'grad_scale')
        return tuple(self.change(value) if self.of == name else value
                     for name, value in zip(names, matmul.backward(*inputs)))


@pytest.fixture
def pretend(monkeypatch):
    """Make auto treat the CPU as a GPU and a :class:`Gpu` as its Triton backend."""

    def install(implementation):
        name = 'mmseg_encstdc_test_gpu'
        module = types.ModuleType(name)
        for method in ('why_not', 'forward', 'backward'):
            setattr(module, method, getattr(implementation, method))
        operator = backend.OPERATORS['encode']
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(backend.OPERATORS, 'encode', operator._replace(
            modules={**operator.modules, 'triton': name}))
        monkeypatch.setattr(backend, '_errors', {})
        monkeypatch.setattr(backend, 'accelerated', lambda device: True)
        monkeypatch.setattr(backend, 'unavailable', lambda *_: None)
        return implementation

    return install


def test_self_check_runs_once_and_auto_takes_backend(
        pretend, inputs, caplog):
    gpu = pretend(Gpu())
    for _ in range(3):
        assert torch.equal(encode(*inputs), matmul.forward(*inputs))
    assert gpu.calls == 4  # the check, and three calls
    encode(inputs[0].half(), *inputs[1:])
    assert gpu.calls == 6  # another type is checked for itself
    assert not caplog.records


FAULTS = {
    'a wrong sum': (lambda value: value * 1.001, 'differs by 1.0e-03'),
    'NaN': (lambda value: value * float('nan'), 'differs by nan'),
    'another shape': (lambda value: value[:1], ' is (1'),
}


@pytest.mark.parametrize('of', ['encodings', 'grad_x', 'grad_codewords',
                                'grad_scale'])
@pytest.mark.parametrize('fault', FAULTS)
def test_self_check_failure_warns_once_and_falls_back(
        pretend, inputs, caplog, fault, of):
    change, message = FAULTS[fault]
    gpu = pretend(Gpu(change, of))
    leaves = [value.requires_grad_() for value in inputs]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            out = encode(*leaves)
            got = [out, *torch.autograd.grad(out.sum(), leaves)]
    expected = matmul.forward(*(value.detach() for value in leaves))
    assert torch.equal(out, expected)
    assert all(value.isfinite().all() for value in got)
    assert gpu.calls == 1
    record, = caplog.records
    assert record.levelno == logging.WARNING
    assert 'encode: the triton backend failed its self-check on cpu for ' \
        'torch.float32, so the torch backend computes' in record.message
    assert message in record.message
    assert of in record.message


def test_self_check_turns_exception_into_one_line(pretend, inputs, caplog):
    def fail(value):
        raise RuntimeError('no C compiler\nat line 1\nat line 2')

    pretend(Gpu(fail))
    assert torch.equal(encode(*inputs), matmul.forward(*inputs))
    record, = caplog.records
    assert record.message.endswith('RuntimeError: no C compiler')


BROKEN = {  # a line of the Triton kernels, and the same with a fault
    'gather': ('total -= tl.sum(weight_sums, 0)', 'total += tl.sum(weight_sums, 0)'),
    'softmax': ('exponentials / tl.sum(exponentials, 1)', 'exponentials / K'),
    'grad_features': ('total += 2 * tl.sum(grad_distance', 'total -= 2 * tl.sum('
                      'grad_distance'),
}


@pytest.mark.parametrize('fault', [None, *BROKEN])
def test_self_check_finds_fault_of_triton_kernels(
        pretend, caplog, tmp_path, fault):
    text = source_of('encode').read_text()
    if fault:
        assert text.count(BROKEN[fault][0]) == 1
        text = text.replace(*BROKEN[fault])
    path = tmp_path / 'triton_copy.py'
    path.write_text(text)
    module = interpreted('encode', path)
    pretend(module)
    x, *rest = torch.randn(2, 21, 30), torch.randn(3, 21), -torch.rand(3) / 5
    with interpreter():
        got = encode(x, *rest)
    torch.testing.assert_close(got, matmul.forward(x, *rest), rtol=0, atol=1e-4)
    if fault:
        record, = caplog.records
        assert 'the triton backend failed its self-check' in record.message
        assert torch.equal(got, matmul.forward(x, *rest))
    else:
        assert not caplog.records
        assert not torch.equal(got, matmul.forward(x, *rest))  # Triton computed


def test_unavailable_module_warns_once(
        pretend, inputs, monkeypatch, caplog):
    unavailable = backend.unavailable
    pretend(Gpu())
    monkeypatch.setattr(backend, 'unavailable', unavailable)
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    monkeypatch.setattr(backend, 'find_spec', lambda name: True)
    monkeypatch.setitem(sys.modules, 'mmseg_encstdc_test_gpu', None)
    backend._import_error.cache_clear()
    for _ in range(2):
        assert torch.equal(encode(*inputs), matmul.forward(*inputs))
    backend._import_error.cache_clear()
    record, = caplog.records
    assert record.message.startswith('mmseg_encstdc_test_gpu cannot be imported')


def test_self_check_waits_for_end_of_graph_capture(pretend, inputs, monkeypatch):
    gpu = pretend(Gpu())
    monkeypatch.setattr(torch.jit, 'is_tracing', lambda: True)
    encode(*inputs)
    assert gpu.calls == 0 and not backend._errors  # nothing was decided
    monkeypatch.setattr(torch.jit, 'is_tracing', lambda: False)
    encode(*inputs)
    assert gpu.calls == 2


def test_self_check_draws_no_random_numbers(pretend, inputs):
    gpu = pretend(Gpu())
    state = torch.get_rng_state()
    encode(*inputs)
    assert gpu.calls == 2 and torch.equal(torch.get_rng_state(), state)


def test_auto_takes_torch_for_other_types_and_empty_batches(pretend, inputs):
    gpu = pretend(Gpu())
    encode(*(value.double() for value in inputs))
    encode(inputs[0][:0], *inputs[1:])
    assert gpu.calls == 0


def test_requested_backend_is_not_checked(pretend, inputs, monkeypatch):
    gpu = pretend(Gpu(lambda value: value + 1))
    monkeypatch.setenv(backend.VARIABLE, 'triton')
    assert torch.equal(encode(*inputs), matmul.forward(*inputs) + 1)
    assert gpu.calls == 1
    with pytest.raises(RuntimeError, match='BACKEND=triton, but x is float64'):
        encode(*(value.double() for value in inputs))


def test_torch_backend_passes_every_self_check(monkeypatch):
    monkeypatch.setattr(backend, '_errors', {})
    for operator in backend.OPERATORS.values():
        tolerances = dict(operator.tolerances)
        for dtype in tolerances:
            assert backend.passes_self_check(operator, 'torch', CPU, dtype), (
                backend._errors)


def test_encode_reference_matches_self_check_example():
    grad, x, codewords, scale = (
        value.double() for value in backend.OPERATORS['encode'].example(
            torch.float32))
    torch.testing.assert_close(matmul.forward(x, codewords, scale),
                               encode_reference(x, codewords, scale))


# --- The table, and what ops imports -------------------------------------------------


def test_ops_main_prints_state_of_every_backend(root):
    done = subprocess.run([sys.executable, '-m', 'mmseg_encstdc.ops'], cwd=root,
                          capture_output=True, text=True, check=True)
    rows = [line.split(None, 3) for line in done.stdout.splitlines()]
    states = {(row[0], row[1], row[2]): row[3] for row in rows if len(row) == 4}
    for operator in ('encode', 'upsampled_cross_entropy', 'kth_largest'):
        assert states[operator, 'cpu', 'torch'].startswith('auto takes it')
    assert 'computes on a GPU' in states['encode', 'cpu', 'triton']
    assert 'has no cuda implementation' in states[
        'upsampled_cross_entropy', 'cpu', 'cuda']


def test_ops_main_rejects_unknown_backend_in_one_line(root, monkeypatch):
    monkeypatch.setenv(backend.VARIABLE, 'gpu')
    done = subprocess.run([sys.executable, '-m', 'mmseg_encstdc.ops'], cwd=root,
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        'error: MMSEG_ENCSTDC_BACKEND=\'gpu\' names no backend')


def test_ops_imports_torch_and_triton_only(root):
    allowed = {'torch', 'triton'} | sys.stdlib_module_names
    for file in (root / 'mmseg_encstdc' / 'ops').rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            names = ([alias.name for alias in node.names]
                     if isinstance(node, ast.Import) else
                     [node.module] if isinstance(node, ast.ImportFrom)
                     and not node.level else [])
            assert {name.split('.')[0] for name in names} <= allowed, file
            if isinstance(node, ast.ImportFrom) and node.level:
                depth = len(file.relative_to(root / 'mmseg_encstdc').parts) - 1
                assert node.level <= depth, f'{file} imports what is above ops'
    assert mmseg_encstdc.__file__.startswith(str(root))
