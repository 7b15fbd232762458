"""Turns, statistics, memory and processes of the benchmarks."""
import json
import os
import resource
import time
from functools import partial

import harness
import processes
import pytest
import record
import torch
from harness import OutOfMemory
from processes import Contender, Worker

from mmseg_encstdc.errors import InputError
from mmseg_encstdc.ops.backend import VARIABLE

CPU = torch.device('cpu')
MIB = 2**20


class Allocate:
    """A step that returns a tensor of so many bytes, and computes with another."""

    def __init__(self, count):
        self.count = count

    def __call__(self):
        torch.ones(self.count, dtype=torch.int8)  # freed before the next
        return torch.ones(self.count, dtype=torch.int8)


def fail(error):
    raise error


def environment(step, name):
    return os.environ.get(name)


def end(step, status):
    os._exit(status)


def kill(step):
    os.kill(os.getpid(), 9)


def process(step):
    return os.getpid(), id(step)


# --- Time -----------------------------------------------------------------------


def test_interleaved_reverses_the_order_of_every_second_round():
    order = []
    samplers = {name: partial(lambda n: order.append(n) or 1., name) for name in 'abc'}
    times = harness.interleaved(samplers, rounds=3)
    assert ''.join(order) == 'abc' 'cba' 'abc' 'cba'  # the first one warms up
    assert all(each['median'] == 1000 for each in times.values())


def test_interleaved_leaves_warm_ups_out():
    values = iter([9., 9., .001, .002, .003])
    times = harness.interleaved(dict(a=lambda: next(values)), 3, warm_ups=2)
    assert times['a'] == pytest.approx(
        dict(median=2, min=1, lower_quartile=1.5, upper_quartile=2.5))


@pytest.mark.parametrize('good', [0, 2])
def test_interleaved_goes_on_without_who_is_out_of_memory(good):
    answers = iter([1.] * good)
    samplers = dict(a=lambda: next(answers, None) or fail(OutOfMemory()), b=lambda: 2.)
    times = harness.interleaved(samplers, rounds=3)
    assert times['a'] is None and times['b']['median'] == 2000


def test_spread_of_one_sample_is_that_sample():
    assert set(harness.spread([.001]).values()) == {1.}


def test_seconds_are_those_of_the_step():
    assert 0.05 <= harness.seconds(lambda: time.sleep(0.05), CPU) < 0.5


def test_ratios_are_of_medians_and_none_where_one_is_missing():
    figures = dict(times_ms=dict(a=dict(median=6.), b=dict(median=2.), c=None),
                   memory_mib=dict(a=8., b=2., c=None))
    assert processes.ratios(figures, 'a', 'b') == dict(time=3, memory=4)
    assert processes.ratios(figures, 'c', 'b') == dict(time=None, memory=None)


# --- Memory ---------------------------------------------------------------------


@pytest.mark.parametrize('mib', [16, 100])
def test_peak_memory_is_that_of_the_largest_moment(mib):
    found = processes.peak_memory(Contender(partial(Allocate, mib * MIB)), CPU)
    assert mib <= found < mib + 2


def test_peak_memory_is_none_where_it_does_not_suffice():
    assert processes.peak_memory(Contender(partial(Allocate, 2**46)), CPU) is None


@pytest.mark.parametrize('error', [
    MemoryError(), torch.cuda.OutOfMemoryError('CUDA out of memory. Tried'),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])
def test_memory_errors_are_told_from_others(error):
    with pytest.raises(OutOfMemory), harness.memory_errors():
        raise error
    with pytest.raises(RuntimeError, match='shapes'), harness.memory_errors():
        raise RuntimeError('shapes differ')


def test_memory_limit_refuses_more_than_there_is_and_is_lifted_again():
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    with harness.memory_limit(CPU):
        with pytest.raises(OutOfMemory), harness.memory_errors():
            torch.empty(most, dtype=torch.int8)
        torch.empty(MIB, dtype=torch.int8)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


# --- Processes ------------------------------------------------------------------


def test_worker_keeps_its_step_and_its_environment():
    contender = Contender(partial(Allocate, 1), {'BENCHMARK_TEST': 'here'})
    with Worker(contender, CPU) as worker:
        first = worker.call(process)
        assert first == worker.call(process) and first[0] != os.getpid()
        assert worker.call(environment, 'BENCHMARK_TEST') == 'here'
    assert 'BENCHMARK_TEST' not in os.environ
    assert not worker.process.is_alive()


@pytest.mark.parametrize('call, error, says', [
    ((kill, ), OutOfMemory, 'killed by signal 9'),
    ((end, 3), RuntimeError, 'ended with status 3')])
def test_worker_that_ends_says_why(call, error, says):
    with Worker(Contender(partial(Allocate, 1)), CPU) as worker:
        with pytest.raises(error, match=says):
            worker.call(*call)


def test_worker_hands_on_what_the_user_can_mend():
    with Worker(Contender(partial(fail, InputError('mend it'))), CPU) as worker:
        with pytest.raises(InputError, match='mend it'):
            worker.call(process)


def test_contest_records_who_is_out_of_memory_beside_the_figures_of_others():
    contenders = {name: Contender(partial(Allocate, count))
                  for name, count in dict(large=2**46, small=MIB).items()}
    figures = processes.contest(contenders, CPU, 2, False, '--shape 1x2x3')
    assert figures['out_of_memory'] == ['large'] and figures['memory_mib'] == {}
    assert figures['times_ms']['large'] is None
    assert figures['times_ms']['small']['min'] > 0
    ratio = dict(large_over_small=processes.ratios(figures, 'large', 'small'))
    text = processes.contest_table('title', figures, ratio)
    assert 'large / small' in text and text.endswith('large: out of memory')
    del contenders['small']
    with pytest.raises(InputError, match='--shape 1x2x3 does not fit into the memory'):
        processes.contest(contenders, CPU, 2, False, '--shape 1x2x3')


# --- Backends and results -------------------------------------------------------


@pytest.mark.parametrize('before', [None, 'auto'])
def test_forced_sets_the_backend_and_restores_it(monkeypatch, before):
    monkeypatch.delenv(VARIABLE, raising=False)
    if before:
        monkeypatch.setenv(VARIABLE, before)
    for name, expected in (('triton', 'triton'), ('stock', before)):
        with harness.forced(name):
            assert os.environ.get(VARIABLE) == expected
        assert os.environ.get(VARIABLE) == before


def test_backends_are_those_that_can_run(monkeypatch):
    missing = dict(cuda='not built')
    monkeypatch.setattr(harness.backend, 'unavailable',
                        lambda operator, name, device: missing.get(name))
    assert harness.backends('encode', CPU) == ('torch', )
    assert harness.backends('encode', torch.device('cuda')) == ('torch', 'triton')


def test_write_leaves_other_results_where_it_fails(results):
    record.write('mine', dict(a=1))
    (results / 'other.json').mkdir()
    with pytest.raises(InputError, match='other.json cannot be written'):
        record.write('other', dict(a=1))
    result = json.loads((results / 'mine.json').read_text())
    assert {'device', 'versions', 'commit', 'command', 'date', 'a'} == set(result)


def test_check_writable_leaves_the_file_as_it_is(tmp_path):
    path = tmp_path / 'new' / 'a.json'
    record.check_writable(path)
    assert path.parent.is_dir() and not path.exists()
    path.write_text('kept')
    record.check_writable(path)
    assert path.read_text() == 'kept'


def test_commit_is_unknown_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert record.commit() == 'unknown'
