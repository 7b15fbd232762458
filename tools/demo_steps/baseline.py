"""The baseline that guesses by the place in the image."""
from pathlib import Path

import cv2
import numpy as np
import torch

from mmseg_encstdc.engine import load_config
from mmseg_encstdc.evaluation import ConfusionMetric, measures
from mmseg_encstdc.scenes import PairAccuracy
from mmseg_encstdc.scenes.classes import CLASSES

from .pictures import read_labels
from .training import CONFIGS


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
    cfg = load_config(str(CONFIGS / 'local_scenes.py'))
    return [tuple(pair) for pair in cfg.val_evaluator[1].pairs]
