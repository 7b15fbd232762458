#!/usr/bin/env python
"""Generate Scenes, train EncNet and STDC on it, and compare: tools/demo.py

Everything goes below --out: a table (results.json), a picture
(comparison.png), overlays and checkpoints. Two baselines stand beside the
networks: the commonest class of each place in the image, and a network that
sees 15 x 15 pixels.
"""
import argparse
import json
import logging
import os.path as osp
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
try:
    import cv2
    import numpy as np
    import torch
    from mmengine.hooks import Hook
    from mmengine.logging import MMLogger
    from mmengine.runner import Runner
    from prettytable import PrettyTable

    from mmseg_encstdc.compat import quiet
    from mmseg_encstdc.engine import check_writable, load_config, stretch_schedule
    from mmseg_encstdc.errors import one_line_errors
    from mmseg_encstdc.evaluation import ConfusionMetric, measures
    from mmseg_encstdc.scenes import PairAccuracy
    from mmseg_encstdc.scenes.classes import CLASSES, PALETTE
    from mmseg_encstdc.visualization import contact_sheet, legend, overlay
except ImportError as error:
    sys.exit(f'error: {error}')

NETWORKS = {
    '15 x 15 pixels': 'local_scenes',
    'EncNet-R18': 'encnet_r18_scenes',
    'STDC1': 'stdc1_scenes',
}
MAJORITY = 'majority by place'


class Progress(Hook):
    """One short line now and then, instead of MMEngine's log."""

    def __init__(self, name: str):
        self.name = name

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        done = runner.iter + 1
        if done % 50 == 0 or done == runner.max_iters:
            loss = runner.message_hub.get_scalar('train/loss').mean(50)
            print(f'  {self.name}: {done}/{runner.max_iters} iterations, '
                  f'loss {loss:.2f}', flush=True)


def run_network(name: str, config: str, data: str, out: Path,
                max_iters=None):
    """Train and evaluate one network.

    Returns:
        tuple: measures in percent, label maps {image name: (H, W)}, seconds
        of training.
    """
    cfg = load_config(str(ROOT / 'configs' / f'{config}.py'))
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        loader.dataset.data_root = data
    if max_iters is not None:
        stretch_schedule(cfg, max_iters)
    cfg.work_dir = str(out / config)
    cfg.log_level = 'WARNING'
    cfg.visualizer.name = config  # each runner has its own
    cfg.train_cfg.val_interval = cfg.train_cfg.max_iters + 1
    cfg.test_evaluator[0].output_dir = str(out / config / 'labels')
    cfg.experiment_name = f'{config}_{time.time():.0f}'
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Progress(name))
    started = time.time()
    runner.train()
    seconds = time.time() - started
    scores = runner.test()
    labels = {
        path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for path in sorted((out / config / 'labels').glob('*.png'))
    }
    return scores, labels, seconds


def read_labels(folder: Path) -> dict:
    """{image name: (H, W) uint8}."""
    return {
        path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for path in sorted(folder.glob('*.png'))
    }


def majority(data: Path, grid: int = 32) -> dict:
    """Scores of the commonest training class at each relative place."""
    votes = np.zeros((grid, grid, len(CLASSES)), np.int64)
    rows, columns = np.indices((grid, grid))
    for label in read_labels(data / 'labels' / 'train').values():
        small = cv2.resize(
            label, (grid, grid), interpolation=cv2.INTER_NEAREST)
        known = small < len(CLASSES)
        np.add.at(votes, (rows[known], columns[known], small[known]), 1)
    guess = votes.argmax(2).astype(np.uint8)  # (grid, grid)
    confusion = ConfusionMetric()
    pairs = PairAccuracy([tuple(pair) for pair in pair_names()])
    for metric in (confusion, pairs):
        metric.dataset_meta = dict(classes=CLASSES)
    for label in read_labels(data / 'labels' / 'val').values():
        size = label.shape[::-1]
        prediction = cv2.resize(guess, size, interpolation=cv2.INTER_NEAREST)
        shares = cv2.resize(
            votes.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
        sample = dict(
            gt_sem_seg=dict(data=torch.from_numpy(label)[None]),
            pred_sem_seg=dict(data=torch.from_numpy(prediction)[None]),
            seg_logits=dict(data=torch.from_numpy(shares).permute(2, 0, 1)))
        confusion.process({}, [sample])
        pairs.process({}, [sample])
    result = measures(
        ConfusionMetric.confusion(confusion.results, len(CLASSES)))
    scores = {k: 100 * result[k] for k in ('PA', 'mPA', 'mIoU', 'FWIoU')}
    return {**scores, **pairs.compute_metrics(pairs.results)}


def pair_names() -> list:
    """The pairs that the configs measure."""
    cfg = load_config(str(ROOT / 'configs' / 'local_scenes.py'))
    return [tuple(pair) for pair in cfg.val_evaluator[1].pairs]


def draw(data: Path, predictions: dict, path: Path, count: int = 6) -> None:
    """Image, label and every network's prediction of some val images."""
    truth = read_labels(data / 'labels' / 'val')
    names = list(truth)[::max(1, len(truth) // count)][:count]
    rows = []
    for name in names:
        image = cv2.imread(str(data / 'images' / 'val' / f'{name}.png'))
        image = image[..., ::-1].copy()
        maps = [truth[name]] + [labels[name] for labels in predictions.values()]
        rows.append(
            [image] + [overlay(image, label, PALETTE, 0.7) for label in maps])
    sheet = contact_sheet(rows)
    sheet = np.vstack([sheet, legend(CLASSES, PALETTE, sheet.shape[1])])
    cv2.imwrite(str(path), sheet[..., ::-1])


def write_overlays(data: Path, labels: dict, folder: Path) -> None:
    """An overlay of every val image."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, label in labels.items():
        image = cv2.imread(str(data / 'images' / 'val' / f'{name}.png'))
        picture = overlay(image[..., ::-1].copy(), label, PALETTE)
        cv2.imwrite(str(folder / f'{name}.jpg'), picture[..., ::-1])


def print_table(results: dict) -> None:
    """All results, in percent."""
    columns = list(next(iter(results.values()))['scores'])
    table = PrettyTable(['val, percent', *columns, 'training'])
    for name, result in results.items():
        seconds = result['train_seconds']
        table.add_row([name] + [f'{result["scores"][c]:.1f}' for c in columns] +
                      [f'{seconds:.0f} s' if seconds else '-'])
    print(table)
    print('a|b: share of the pixels of two classes of one look that are told '
          'apart; chance is 50')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='data/scenes')
    parser.add_argument('--out', default='work_dirs/demo')
    parser.add_argument(
        '--max-iters', type=int, help='shorten every training, for a trial')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    data, out = Path(args.data), Path(args.out)
    with one_line_errors(), quiet():
        check_writable(str(out))
        if not osp.exists(data / 'scenes.json'):
            made = subprocess.run([
                sys.executable,
                str(ROOT / 'tools' / 'make_scenes.py'),
                str(data)
            ])
            if made.returncode:  # it has said why
                sys.exit(made.returncode)
        MMLogger.get_instance('demo', log_level=logging.WARNING)
        results = {
            MAJORITY: dict(scores=majority(data), train_seconds=None)
        }
        predictions = {}
        for name, config in NETWORKS.items():
            scores, labels, seconds = run_network(name, config, str(data), out,
                                                  args.max_iters)
            results[name] = dict(scores=scores, train_seconds=seconds)
            predictions[name] = labels
            write_overlays(data, labels, out / config / 'overlays')
    draw(data, predictions, out / 'comparison.png')
    (out / 'results.json').write_text(json.dumps(results, indent=1))
    print_table(results)
    print(f'image, label, {", ".join(predictions)}: {out}/comparison.png')


if __name__ == '__main__':
    main()
