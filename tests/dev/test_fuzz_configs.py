"""Test that random changes of configs give one line, or a training."""
import random
import sys
from copy import deepcopy
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / 'dev'))
import fuzz_configs as tool  # noqa: E402


def test_typo_changes_word():
    rng = random.Random(0)
    changed = [tool.typo('optimizer', rng) for _ in range(20)]
    assert 'optimizer' not in changed and len(set(changed)) > 10


def test_mutate_changes_one_value(tmp_path):
    original = tool.small('stdc1_camvid', tmp_path)
    for seed in range(20):
        cfg = deepcopy(original)
        kind, key, _ = tool.mutate(cfg, random.Random(seed))
        if kind != 'valid':
            assert cfg.to_dict() != original.to_dict(), (kind, key)


@pytest.mark.slow
def test_dry_run_of_changed_configs_gives_no_traceback(tmp_path):
    runs = tool.fuzz(range(1000, 1010), 0, tmp_path, 1)
    found = tool.summary(runs)
    assert found['bad'] == []
    assert found['outcomes'].get('error', 0) > 2 and found['outcomes']['ok'] > 2
