"""Test the benchmark that trains sets of experiments on CamVid."""
import json
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / 'benchmarks'), str(ROOT / 'tests')]
import camvid as tool  # noqa: E402
from camvid_sets import SETS, Experiment  # noqa: E402
from small_run import write_run  # noqa: E402


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Return a function that runs the tool on a small set."""
    config = str(write_run(tmp_path))
    monkeypatch.setitem(SETS, 'stdc', [Experiment(config, 6, seeds=(0, 1))])
    monkeypatch.setenv('OMP_NUM_THREADS', '1')

    def run(*words):
        monkeypatch.setattr(sys, 'argv', [
            'camvid.py', 'stdc', '--work-dir', str(tmp_path / 'work'), '--results',
            str(tmp_path / 'results'), *words])
        tool.main()
        return sorted((tmp_path / 'results').glob('*.json'))

    return run


@pytest.mark.slow
def test_camvid_goes_on_after_a_stop_and_writes_each_run(call, capfd):
    assert call('--minutes', '0') == []
    assert 'the same command goes on' in capfd.readouterr().out
    files = call()
    assert [path.name for path in files] == ['small_6_seed0.json', 'small_6_seed1.json']
    for seed, path in enumerate(files):
        content = json.loads(path.read_text())
        assert content['seed'] == seed and content['versions']['torch']
        assert [*content['val']] == ['2', '4', '6'] and len(content['loss']) == 6
        assert content['val']['6']['mIoU'] == pytest.approx(
            content['single']['mIoU'], abs=1e-3)
        assert 0 <= content['single']['mBF'] <= 100
    times = [path.stat().st_mtime for path in files]
    capfd.readouterr()
    assert [path.stat().st_mtime for path in call()] == times
    out = capfd.readouterr().out
    assert '$' not in out and '| 6 | 2 |' in out


def test_table_has_mean_and_range(tmp_path):
    for seed, value in enumerate((30, 34)):
        (tmp_path / f'{seed}.json').write_text(json.dumps(dict(
            config='a.py', iterations=9, single=dict.fromkeys(tool.MEASURES, value))))
    assert tool.table(tmp_path).splitlines()[-1].startswith(
        '| `a.py` | 9 | 2 | 32.00 (30.00 to 34.00) |')


@pytest.mark.parametrize('config', sorted(
    {one.config for group in SETS.values() for one in group}))
def test_sets_name_configs_that_train_for_iterations(config):
    assert Config.fromfile(ROOT / config).train_cfg.max_iters
