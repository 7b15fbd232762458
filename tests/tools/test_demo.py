"""The demo, from nothing to a table, on a tiny set."""
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
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
               folder / 'out', '--max-iters', 2)
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
    sys.path.insert(0, str(ROOT / 'tools'))
    import demo as tool
    scores = tool.majority(scenes)
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
