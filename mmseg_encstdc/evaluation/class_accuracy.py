"""How often the true class of an image is among the first."""
from typing import Dict, List, Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

__all__ = ['ClassAccuracy', 'rank_of']


class ClassAccuracy(BaseMetric):
    """Top-1 and top-5 accuracy, in percent, named ``top1`` and ``top5``.

    Each image gives the rank of its true class, an integer, so the figures do
    not depend on the number of processes.

    Args:
        topk (Sequence[int]): how many first classes count as a hit. With k
            classes or fewer, every image is one. Default: (1, 5).
        collect_device (str): 'cpu' or 'gpu'. Default: 'cpu'.
        prefix (str, optional): put before the names of the measures.

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
        """Rank the true class of each image."""
        for sample in data_samples:
            self.results.append(
                rank_of(int(sample['gt_label']), sample['pred_score']))

    def compute_metrics(self, results: List[int]) -> Dict[str, float]:
        """Percent of the images whose true class ranks before k."""
        ranks = np.asarray(results, np.int64)  # (images, )
        return {
            f'top{k}': 100 * int((ranks < k).sum()) / len(ranks)
            for k in self.topk
        }


def rank_of(label: int, scores: torch.Tensor) -> int:
    """Number of classes that go before ``label``.

    Of equal scores the lower id goes first, as with argmax. What is no number
    goes before every number, lest a network that has diverged be right.

    Args:
        label (int): true class.
        scores (Tensor): of all classes, (C, ).

    Raises:
        ValueError: for a label outside 0 to C - 1.
    """
    classes = scores.numel()
    if not 0 <= label < classes:
        raise ValueError(f'a label is {label}, but the scores are of the '
                         f'classes 0 to {classes - 1}')
    own = scores[label]
    later = torch.arange(classes, device=scores.device) > label
    behind = (scores < own) | ((scores == own) & later)
    return classes - 1 - int(behind.sum())
