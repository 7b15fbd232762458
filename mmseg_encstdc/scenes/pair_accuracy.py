"""Can a network tell apart classes that look the same?"""
from typing import Dict, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

__all__ = ['PairAccuracy']


class PairAccuracy(BaseMetric):
    """Balanced accuracy within pairs of classes, in percent; chance is 50.

    For each member of a pair: the fraction of its pixels at which its logit exceeds
    the other member's. The figure is the mean of both.

    Args:
        pairs (Sequence[tuple[str, str]]): names of the data set's classes.
        collect_device (str): 'cpu' or 'gpu'. Default: 'cpu'.

    Raises:
        ValueError: when a name is not a class of the data set.
    """

    default_prefix = ''  # the names below stand alone

    def __init__(self,
                 pairs: Sequence[Tuple[str, str]],
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None):
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.pairs = [tuple(pair) for pair in pairs]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count, for each member of each pair, right and labelled pixels."""
        for sample in data_samples:
            logits = sample['seg_logits']['data']  # (C, H, W)
            label = sample['gt_sem_seg']['data'].squeeze(0).to(logits.device)
            self.results.append(self.count(logits, label))

    def count(self, logits: torch.Tensor, label: torch.Tensor) -> np.ndarray:
        """(pairs, 2 members, [right, labelled]) of one image, int64."""
        counts = np.zeros((len(self.pairs), 2, 2), np.int64)
        for p, pair in enumerate(self.pairs):
            ids = [self._id(name) for name in pair]
            for m, (own, other) in enumerate((ids, ids[::-1])):
                mask = label == own
                right = (logits[own] > logits[other]) & mask
                counts[p, m] = int(right.sum()), int(mask.sum())
        return counts

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """Pair -> balanced accuracy, NaN where a member does not occur."""
        counts = np.sum(results, axis=0)  # (pairs, 2, 2)
        with np.errstate(invalid='ignore'):
            recall = counts[..., 0] / counts[..., 1]
        return {
            '|'.join(pair): 100 * float(value)
            for pair, value in zip(self.pairs, recall.mean(1))
        }

    def _id(self, name: str) -> int:
        classes = list(self.dataset_meta['classes'])
        if name not in classes:
            raise ValueError(f'{name!r} of PairAccuracy.pairs is not a class; '
                             f'accepted are {", ".join(classes)}')
        return classes.index(name)
