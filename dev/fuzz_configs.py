#!/usr/bin/env python
"""Change one value of a config at random, and see what tools/train.py --dry-run says.

dev/fuzz_configs.py --runs 500 writes benchmarks/results/config_fuzz.json. Each run
is a process of its own. After every fourth run, an accepted config is trained
for two iterations, and a refused one is given to MMEngine's runner without any
check, to find false alarms; after a run of a valid change always.
"""
import argparse
import gc
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Iterable, List, Tuple

ROOT = Path(__file__).resolve().parents[1]
for folder in ('', 'tools', 'benchmarks'):
    sys.path.insert(0, str(ROOT / folder))

import numpy as np  # noqa: E402
import record  # noqa: E402
import torch  # noqa: E402
import train as train_tool  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from PIL import Image  # noqa: E402

CONFIGS = dict(stdc1_camvid=11, encnet_r18_scenes=14, stdc1_scenes=14)  # classes
# Parts that a training reads; other keys are variables of the config.
PARTS = ('model', 'train_dataloader', 'val_dataloader', 'train_cfg', 'val_cfg',
         'optim_wrapper', 'param_scheduler', 'val_evaluator', 'default_hooks',
         'env_cfg', 'log_processor', 'log_level', 'visualizer', 'randomness',
         'auto_scale_lr', 'load_from', 'resume', 'default_scope')
VALUES = (None, -1, 0, 10**6, 0.5, True, 'nonsense', [], [1, 2], {},
          {'type': 'Nothing'})
KINDS = ('misspelt', 'misspelt name', 'type', 'range', 'missing', 'valid')
VALID = {  # option -> value that means something
    'train_dataloader.batch_size': 3, 'train_dataloader.num_workers': 1,
    'train_dataloader.drop_last': False, 'val_dataloader.batch_size': 2,
    'optim_wrapper.optimizer.lr': 1, 'optim_wrapper.optimizer.nesterov': True,
    'optim_wrapper.clip_grad': dict(max_norm=1.), 'param_scheduler': [],
    'default_hooks.logger.interval': 1, 'default_hooks.checkpoint.save_best': 'auto',
    'default_hooks.visualization': None, 'default_hooks.timer': None,
    'custom_hooks': [dict(type='EMAHook')], 'val_evaluator': [dict(type='IoUMetric')],
    'randomness.seed': None, 'log_level': 'WARNING', 'my_variable': [1, {'a': 2}],
    'optim_wrapper.accumulative_counts': 2, 'test_dataloader.dataset.data_root': '/no'}
FOLLOWED = 4
TIMEOUT = 120  # seconds


def write_data(folder: Path, classes: int) -> None:
    """Write 4 + 2 images of 64 x 96 with a label of all classes."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 2)):
        for i in range(count):
            label = (np.arange(64 * 96).reshape(64, 96) % classes).astype(np.uint8)
            image = rng.integers(0, 256, (64, 96, 3), np.uint8)
            for file, pixels in ((f'images/{split}/{i}.jpg', image),
                                 (f'labels/{split}/{i}.png', label)):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / file)


def small(name: str, data: Path) -> Config:
    """Return a config of this project with small crops and two iterations."""
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(data / str(CONFIGS[name])),
                              img_suffix='.jpg')
    cfg.train_dataloader.batch_size = 2
    for transform in cfg.train_dataloader.dataset.pipeline:
        if 'crop_size' in transform:
            transform.crop_size = (64, 64)
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 2
    return cfg


def places(node: object, path: Tuple = ()) -> List[Tuple]:
    """Return the paths of all keys and list entries below a part of a config."""
    pairs = (node.items() if isinstance(node, dict) else
             enumerate(node) if isinstance(node, list) else ())
    return [p for key, child in pairs
            for p in [(*path, key), *places(child, (*path, key))]]


def mutate(cfg: Config, rng: random.Random) -> Tuple[str, str, object]:
    """Change a config in place; return the kind, the key and the value."""
    kind = rng.choice(KINDS)
    if kind == 'valid':
        key = rng.choice(list(VALID))
        cfg.merge_from_dict({key: VALID[key]})
        return kind, key, VALID[key]
    found = [p for part in PARTS if part in cfg
             for p in [(part, ), *places(cfg[part], (part, ))]]
    while True:
        path = rng.choice(found)
        node = cfg
        for key in path[:-1]:
            node = node[key]
        key, old = path[-1], node[path[-1]]
        number = isinstance(old, (int, float)) and not isinstance(old, bool)
        if kind == 'range' and not number or kind == 'misspelt name' and not isinstance(
                old, str) or kind == 'misspelt' and isinstance(key, int):
            continue
        break
    value = {'misspelt': old, 'missing': None,
             'misspelt name': typo(old, rng) if isinstance(old, str) else None,
             'type': rng.choice([v for v in VALUES if type(v) is not type(old)]),
             'range': rng.choice([v for v in (-1, 0, 1e9) if v != old])}[kind]
    if kind in ('misspelt', 'missing'):
        node.pop(key)
    if kind != 'missing':
        new = typo(key, rng) if kind == 'misspelt' else key
        node[new] = value
    return kind, '.'.join(map(str, path)), value if kind != 'misspelt' else new


def typo(word: str, rng: random.Random) -> str:
    """Drop, double or exchange a letter."""
    i = rng.randrange(max(len(word) - 1, 1))
    changed = rng.choice((word[:i] + word[i + 1:], word[:i + 1] + word[i:],
                          word[:i] + word[i + 1:i + 2] + word[i:i + 1] + word[i + 2:]))
    return changed if changed != word else word + 'x'


def execute(how: str, config: Path, folder: Path) -> Tuple[str, str]:
    """Run in a forked process; return (ok, error, traceback or hang, its last line)."""
    log = folder / f'{how}.log'
    process = multiprocessing.get_context('fork').Process(
        target=_child, args=(how, config, folder, log))
    process.start()
    process.join(TIMEOUT)
    if process.is_alive():
        process.kill()
        process.join()
        return 'hang', ''
    lines = [line for line in log.read_text(errors='replace').splitlines() if line]
    errors = [line for line in lines if line.startswith('error: ')]
    if process.exitcode == 0:
        return 'ok', ''
    if 'Traceback (most recent call last):' in lines or len(errors) != 1:
        return 'traceback', lines[-1] if lines else ''
    return 'error', errors[0]


def _child(how: str, config: Path, folder: Path, log: Path) -> None:
    torch.set_num_threads(1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(1, 2)
    sys.stdout = sys.stderr = os.fdopen(1, 'w', buffering=1)
    _run(how, config, folder)


def _run(how: str, config: Path, folder: Path) -> None:
    """Run the tool, or with 'plain' MMEngine's runner without our checks."""
    work = str(folder / how)
    if how == 'plain':
        cfg = Config.fromfile(config)
        cfg.work_dir = work
        Runner.from_cfg(cfg).train()
        return
    dry = ['--dry-run'] if how == 'dry' else []
    sys.argv = ['train.py', str(config), '--work-dir', work, *dry]
    train_tool.main()


def one(index: int, seed: int, data: Path) -> dict:
    """Change a config and try it; return what happened."""
    rng = random.Random(f'{seed} {index}')
    name = rng.choice(list(CONFIGS))
    cfg = small(name, data)
    kind, key, value = mutate(cfg, rng)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / 'config.py'
        cfg.dump(config)
        outcome, line = execute('dry', config, Path(folder))
        after, end = '', ''
        if outcome in ('ok', 'error') and (index % FOLLOWED == 0 or kind == 'valid'):
            after, end = execute('plain' if outcome == 'error' else 'train', config,
                                 Path(folder))
    return dict(index=index, config=name, kind=kind, key=key, value=repr(value),
                outcome=outcome, line=line, then=after,
                end=end if outcome == 'ok' else '')


def fuzz(numbers: Iterable[int], seed: int, data: Path, processes: int) -> List[dict]:
    """Try a change for each number; import what a run imports once, before."""
    for classes in set(CONFIGS.values()):
        write_data(data / str(classes), classes)
    small('stdc1_camvid', data).dump(data / 'config.py')
    _run('dry', data / 'config.py', data)
    gc.freeze()
    with ProcessPoolExecutor(
            processes, multiprocessing.get_context('fork')) as pool:
        return list(pool.map(partial(one, seed=seed, data=data), numbers))


def summary(runs: List[dict]) -> dict:
    """Count what happened, and list what should not have."""
    bad = [r for r in runs if r['outcome'] in ('traceback', 'hang')
           or r['outcome'] == 'ok' and r['then'] not in ('ok', '')
           or r['outcome'] == 'error' and r['kind'] == 'valid']
    return dict(
        runs=len(runs), outcomes=dict(Counter(r['outcome'] for r in runs)),
        by_kind={k: dict(Counter(r['outcome'] for r in runs if r['kind'] == k))
                 for k in sorted({r['kind'] for r in runs})},
        accepted_then_trained=sum(
            r['outcome'] == 'ok' and r['then'] == 'ok' for r in runs),
        false_alarms=sum(r in bad and r['outcome'] == 'error' for r in runs), bad=bad,
        refused_but_mmengine_trains=[
            {k: r[k] for k in ('key', 'kind', 'value', 'line')} for r in runs
            if r['outcome'] == 'error' and r['then'] == 'ok'],
        accepted=[{k: r[k] for k in ('key', 'kind', 'value')} for r in runs
                  if r['outcome'] == 'ok' and r['kind'] != 'valid'])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--runs', type=int, default=500)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--first', type=int, default=0, help='number of the first run')
    parser.add_argument('--processes', type=int, default=2)
    parser.add_argument('--out', help='write here instead of benchmarks/results')
    args = parser.parse_args()
    start = time.time()
    with tempfile.TemporaryDirectory() as data:
        runs = fuzz(range(args.first, args.first + args.runs), args.seed, Path(data),
                    args.processes)
    figures = dict(seed=args.seed, minutes=round((time.time() - start) / 60, 1),
                   **summary(runs))
    record.write('config_fuzz', figures, kind='cpu', out=args.out)
    print(json.dumps({k: figures[k] for k in ('runs', 'outcomes', 'bad')}, indent=1))


if __name__ == '__main__':
    main()
