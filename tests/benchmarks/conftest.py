"""Let the tests import and run the benchmarks."""
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / 'tools'), str(ROOT / 'benchmarks')]
import benchmark  # noqa: E402
import record  # noqa: E402


@pytest.fixture
def results(monkeypatch, tmp_path):
    """A folder for results."""
    monkeypatch.setattr(record, 'RESULTS', tmp_path / 'results')
    return tmp_path / 'results'


@pytest.fixture
def call(monkeypatch, results):
    """Runs tools/benchmark.py with words, in this process."""
    def run(*words):
        monkeypatch.setattr(sys, 'argv', ['tools/benchmark.py', *map(str, words)])
        benchmark.main()
    return run


@pytest.fixture
def refused(call, capsys):
    """Runs the tool with words that are at fault; the one line that it says."""
    def run(*words):
        with pytest.raises(SystemExit) as stopped:
            call(*words)
        line = capsys.readouterr().err
        assert stopped.value.code == 2
        assert line.startswith('error: ') and line.count('\n') == 1
        return line
    return run
