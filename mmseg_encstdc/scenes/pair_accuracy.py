"""Measure the accuracy between classes that look the same."""
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor

__all__ = ['PairAccuracy']


class PairAccuracy(BaseMetric):
    """Compute the balanced accuracy within pairs of classes, in percent.

    The recall of a class counts the pixels of it at which its logit exceeds that of the
    other class. The accuracy is the mean of both recalls; chance is 50.

    Args:
        pairs: names of two classes each.
        collect_device: 'cpu' or 'gpu', on which results are collected.
        prefix: prefix of the names of the pairs.

    Raises:
        ValueError: when a name is not a class of the data set.
    """

    default_prefix = ''  # the names stand alone

    def __init__(self, pairs: Sequence[Tuple[str, str]], collect_device: str = 'cpu',
                 prefix: Optional[str] = None):
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.pairs = [tuple(pair) for pair in pairs]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Append the counts of each image to the results."""
        for sample in data_samples:
            logits = sample['seg_logits']['data']  # (C, H, W)
            label = sample['gt_sem_seg']['data'].squeeze(0).to(logits.device)
            self.results.append(self.count(logits, label))

    def count(self, logits: Tensor, label: Tensor) -> np.ndarray:
        """Count hits and pixels of each class of each pair, (pairs, 2, 2), int64.

        Args:
            logits: (C, H, W).
            label: (H, W).
        """
        counts = np.zeros((len(self.pairs), 2, 2), np.int64)
        for p, pair in enumerate(self.pairs):
            ids = [self._id(name) for name in pair]
            for m, (own, other) in enumerate((ids, ids[::-1])):
                mask = label == own
                hits = (logits[own] > logits[other]) & mask
                counts[p, m] = int(hits.sum()), int(mask.sum())
        return counts

    def compute_metrics(self, results: List[np.ndarray]) -> Dict[str, float]:
        """Return the accuracy of each pair, NaN where a class does not occur."""
        counts = np.sum(results, axis=0)  # (pairs, 2, 2)
        with np.errstate(invalid='ignore'):
            recall = counts[..., 0] / counts[..., 1]
        return {'|'.join(pair): 100 * float(value)
                for pair, value in zip(self.pairs, recall.mean(1))}

    def _id(self, name: str) -> int:
        """Return the id of a class by its name."""
        classes = list(self.dataset_meta['classes'])
        if name not in classes:
            raise ValueError(f'{name!r} of PairAccuracy.pairs is not a class; '
                             f'accepted are {", ".join(classes)}')
        return classes.index(name)
