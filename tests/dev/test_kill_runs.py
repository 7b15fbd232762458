"""Test that killed trainings lose nothing, and that the comparison would tell."""
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[2]
tool = SimpleNamespace(**runpy.run_path(str(ROOT / 'dev/kill_runs.py')))


def test_same_finds_one_bit():
    first = {'w': torch.ones(3)}
    second = {'w': torch.ones(3)}
    assert tool.same(first, second)
    second['w'][1] = torch.nextafter(torch.tensor(1.), torch.tensor(2.))
    assert not tool.same(first, second) and not tool.same(first, {})


def test_damaged_finds_truncated_checkpoint(tmp_path):
    torch.save(dict(state_dict={'w': torch.ones(99)}, meta={}), tmp_path / 'a.pth')
    assert tool.damaged(tmp_path) == []
    (tmp_path / 'b.pth').write_bytes((tmp_path / 'a.pth').read_bytes()[:500])
    assert tool.damaged(tmp_path) == ['b.pth']


@pytest.mark.slow
def test_killed_runs_lose_nothing(tmp_path):
    found = tool.kill_runs(10, 1, tmp_path)
    assert found['kills'] == 10 and found['while_saving'] >= 4
    assert found['unloadable'] == found['failed_resumes'] == []
    assert found['different_runs'] == []
