"""Compute the top-k accuracy of a classifier."""
from typing import Dict, List, Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

__all__ = ['ClassAccuracy', 'rank_of']


class ClassAccuracy(BaseMetric):
    """Compute top-1 and top-5 accuracy in percent, ``top1`` and ``top5``.

    Counts the integer rank of each image's class, so the numbers do not depend on the
    number of processes.

    Args:
        topk: values of k. With k classes or fewer the accuracy is 100.
        **kwargs: arguments of MMEngine's BaseMetric.

    Raises:
        ValueError: for a k below 1, and for a label outside the classes.
    """

    default_prefix = ''  # the names stand alone

    def __init__(self, topk: Sequence[int] = (1, 5), **kwargs):
        super().__init__(**kwargs)
        if not topk or min(topk) < 1:
            raise ValueError(f'topk must be numbers of 1 or more, got {topk}')
        self.topk = tuple(topk)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Append the rank of each image's class to the results."""
        self.results.extend(rank_of(int(sample['gt_label']), sample['pred_score'])
                            for sample in data_samples)

    def compute_metrics(self, results: List[int]) -> Dict[str, float]:
        """Return the percentage of images whose class is among the first k."""
        ranks = np.asarray(results, np.int64)  # (images, )
        return {f'top{k}': 100 * int((ranks < k).sum()) / len(ranks)
                for k in self.topk}


def rank_of(label: int, scores: Tensor) -> int:
    """Return the rank of a class by its score, from 0.

    Of equal scores the lower id ranks first, as with argmax. NaN ranks before every
    number, so that a network that diverged has no hits.

    Args:
        label: class id.
        scores: scores of all classes, (C, ).

    Raises:
        ValueError: for a label outside 0 to C - 1.
    """
    classes = scores.numel()
    if not 0 <= label < classes:
        raise ValueError(f'a label is {label}, but the scores are of the classes 0 to '
                         f'{classes - 1}')
    score = scores[label]
    later = torch.arange(classes, device=scores.device) > label
    behind = (scores < score) | ((scores == score) & later)
    return classes - 1 - int(behind.sum())
