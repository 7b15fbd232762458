"""The demo, from nothing to a table, on a tiny set."""
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmseg_encstdc.errors import InputError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tools'))
import demo as tool  # noqa: E402
from demo_steps.baseline import majority  # noqa: E402
from demo_steps.time_plan import Cost, TimePlan  # noqa: E402

PAIRS = ('road|floor', 'facade|wall', 'sky|ceiling')


def run(*words):
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True,
        text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """Output folder, data folder and printed text of a short demo."""
    folder = tmp_path_factory.mktemp('demo')
    made = run('tools/make_scenes.py', folder / 'scenes', '--train', 12,
               '--val', 4)
    assert made.returncode == 0, made.stderr
    done = run('tools/demo.py', '--data', folder / 'scenes', '--out',
               folder / 'out', '--max-iters', 2, '--minutes', 'inf')
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / 'out', folder / 'scenes', done.stdout


def test_the_table_has_both_networks_and_both_baselines(demo):
    out, _, text = demo
    results = json.loads((out / 'results.json').read_text())
    assert list(results) == [
        'majority by place', '15 x 15 pixels', 'EncNet-R18', 'STDC1'
    ]
    for name, result in results.items():
        assert name in text
        assert {'PA', 'mPA', 'mIoU', 'FWIoU', *PAIRS} == set(result['scores'])
    assert [result['iterations'] for result in results.values()] == [
        None, 2, 2, 2]
    assert 'The same seed gives other numbers on another processor' in text
    assert (ROOT / 'benchmarks/results/demo.json').is_file()  # named below it


def test_the_first_picture_is_of_the_first_network(demo):
    out, _, text = demo
    assert text.index('first_picture.png') < text.index('EncNet-R18:')
    first, whole = (cv2.imread(str(out / f'{name}.png'))
                    for name in ('first_picture', 'comparison'))
    # Image, label and one prediction stand where the others have three.
    assert first.shape[1] / whole.shape[1] == pytest.approx(3 / 5, rel=0.02)


def test_the_time_left_is_shown(demo):
    assert demo[2].count(' minutes left') == 3


def test_every_val_image_gets_a_label_map_and_an_overlay(demo):
    out, scenes, _ = demo
    names = {p.stem for p in (scenes / 'images' / 'val').glob('*.png')}
    for config in ('local_scenes', 'encnet_r18_scenes', 'stdc1_scenes'):
        for kind in ('labels', 'overlays'):
            assert {p.stem for p in (out / config / kind).iterdir()
                    if p.suffix != '.json'} == names
    assert cv2.imread(str(out / 'comparison.png')).shape[0] > 4 * 160


def test_the_majority_baseline_is_the_commonest_class_of_each_place(demo):
    _, scenes, _ = demo
    scores = majority(scenes)
    labels = {
        split: [cv2.imread(str(p), cv2.IMREAD_UNCHANGED)
                for p in sorted((scenes / 'labels' / split).glob('*.png'))]
        for split in ('train', 'val')
    }
    # One guess for all places can only be worse, or as good.
    values = np.concatenate([each.ravel() for each in labels['train']])
    commonest = np.bincount(values[values < 14]).argmax()
    truth = np.concatenate([each.ravel() for each in labels['val']])
    everywhere = 100 * (truth == commonest).sum() / (truth < 14).sum()
    assert everywhere < scores['PA'] < 90


# --- Time --------------------------------------------------------------------


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now = 1000.

    def __call__(self):
        return self.now


def planned(minutes, clock=None, passed=0, **costs):
    """A plan of networks ``name=(iterations, seconds, fixed)``."""
    clock = clock or Clock()
    plan = TimePlan(minutes, len(costs), clock=clock)
    clock.now += passed
    for name, cost in costs.items():
        plan.add_cost(name, Cost(*cost))
    return plan


def test_time_plan_keeps_whole_schedules_where_the_time_suffices():
    plan = planned(60, a=(200, .1, 5), b=(700, .2, 9))
    assert plan.start('a') == 200
    assert plan.iterations == dict(a=200, b=700)


def test_time_plan_shortens_all_by_one_factor():
    # 480 s less 8 percent, 21 s passed, 20 s of evaluation: 400 of 800 s.
    plan = planned(8, passed=21, a=(200, 1., 10), b=(600, 1., 10))
    assert plan.start('a') == 100
    assert plan.iterations == dict(a=100, b=300)


def test_time_plan_leaves_a_picture_within_a_third_of_the_time():
    clock = Clock()
    plan = planned(3, clock, passed=20, a=(1000, 1., 10), b=(10, 1., 10))
    assert plan.start('a') == 30  # 60 s less 20 and 10
    clock.now += 40
    plan.finish('a')
    assert plan.start('b') == 10


def test_time_plan_takes_the_rest_of_the_time_into_account():
    clock = Clock()
    plan = planned(8, clock, a=(200, 1., 10), b=(600, 1., 10))
    plan.start('a')
    clock.now += 341.6  # more than planned: 480 - 38.4 - 341.6 = 100
    plan.finish('a')
    assert plan.start('b') == 90


def test_time_plan_counts_the_minutes_down():
    plan = planned(60, a=(200, .5, 20), b=(100, 1., 40))
    plan.start('a')
    assert plan.minutes_left('a', 0) == pytest.approx(260 / 60)
    assert plan.minutes_left('a', 200) == pytest.approx(160 / 60)
    plan.finish('a')
    plan.start('b')
    assert plan.minutes_left('b', 100) == pytest.approx(40 / 60)


def test_time_plan_refuses_less_than_an_iteration_of_each():
    costs = dict(a=(200, 1., 10), b=(600, 1., 10))
    with pytest.raises(InputError, match='^--minutes 0.3 is too short .* least'):
        planned(0.3, **costs)
    with pytest.raises(InputError) as caught:
        planned(0.1, **costs)
    least = float(str(caught.value).split()[-1])
    plan = planned(least, **costs)
    assert plan.start('a') >= 1 and min(plan.iterations.values()) >= 1
    with pytest.raises(InputError):
        planned(least - 0.1, **costs)


def test_time_plan_refuses_before_all_networks_are_measured():
    plan = TimePlan(0.1, 2, clock=Clock())
    with pytest.raises(InputError, match='give at least 0.4$'):  # 22 s / 0.92
        plan.add_cost('a', Cost(200, 1., 10))


@pytest.mark.parametrize('minutes', ['0', '-3', 'nan'])
def test_demo_refuses_minutes_that_are_not_positive(tmp_path, minutes):
    done = run('tools/demo.py', '--data', tmp_path / 'scenes', '--out',
               tmp_path / 'out', f'--minutes={minutes}')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f'error: --minutes must be above 0, got {minutes}')
    assert not list(tmp_path.iterdir())


def test_demo_says_which_schedules_it_shortens(monkeypatch, tmp_path, capsys):
    """On a machine that needs 1 s an iteration, and where nothing is computed."""
    clock, trained = Clock(), {}

    def train(name, config, data, out, iterations, minutes_left):
        trained[name] = iterations
        clock.now += iterations
        return dict(mIoU=1.), {}, float(iterations)

    monkeypatch.setattr(tool, 'run_network', train)
    monkeypatch.setattr(tool, 'write_overlays', lambda *_: None)
    drawn = []
    monkeypatch.setattr(tool, 'draw', lambda data, predictions, path:
                        drawn.append((path.name, clock.now - 1000)))
    plan = TimePlan(8, 3, clock=clock)
    for name, whole in zip(tool.NETWORKS, (40, 400, 400)):
        plan.add_cost(name, Cost(whole, 1., 0.))
    results = tool.compare(plan, tmp_path, tmp_path)
    text = capsys.readouterr().out
    for name, whole in zip(tool.NETWORKS, (40, 400, 400)):
        assert results[name]['iterations'] == trained[name] < whole
        assert (f'{name}: {trained[name]} of {whole} iterations, to keep to '
                '8 minutes\n') in text
    assert 440 < sum(trained.values()) < 442  # 480 s less 8 percent
    (first, when), (last, _) = drawn
    assert (first, last) == ('first_picture.png', 'comparison.png')
    assert when < 160


def test_time_plan_extends_only_if_it_may():
    slow = Cost(iterations=200, seconds=6., fixed=30.)
    plan = TimePlan(1, 2, may_extend=True, clock=Clock())
    plan.add_cost('first', slow)
    plan.add_cost('second', slow)
    # A twentieth of 200 iterations of 6 s and 30 s more, twice; 8 % in reserve.
    assert plan.minutes == pytest.approx(2 * (10 * 6 + 30) / 0.92 / 60)
    assert plan.start('first') >= 1
    with pytest.raises(InputError, match='too short'):
        TimePlan(1, 2, clock=Clock()).add_cost('first', Cost(200, 60., 30.))
