"""Compute how well the boundaries of a segmentation agree with those of the labels."""
from typing import Dict, List, Optional, Sequence

import cv2
import numpy as np
from mmengine.evaluator import BaseMetric

from .confusion_metric import check_equal_size

__all__ = ['BoundaryMetric', 'boundary_scores']

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
SQUARE = np.ones((3, 3), np.uint8)


def boundary_scores(prediction: np.ndarray, label: np.ndarray, num_classes: int,
                    tolerance: float = 0.0075,
                    ignore_index: int = 255) -> np.ndarray:
    """Compute the boundary F-score of each class in one image.

    A boundary pixel of a class has a neighbour (left, right, above, below) of another
    class. Pixels that are ignored, and their neighbours, are no boundary, nor is the
    border of the image. Precision is the fraction of predicted boundary pixels at most
    the tolerance away from a labelled one, recall the reverse; the score is their
    harmonic mean. Source: Csurka et al., What is a good evaluation measure for semantic
    segmentation?, BMVC 2013.

    Args:
        prediction: class ids, (H, W).
        label: class ids, (H, W).
        num_classes: number of classes C.
        tolerance: distance, as a fraction of the image's diagonal.
        ignore_index: id of pixels that are not scored.

    Returns:
        Scores in [0, 1], (C, ); NaN for a class without boundary in both; 0 where only
        one of them has one.
    """
    limit = tolerance * np.hypot(*label.shape)
    valid = (label != ignore_index).astype(np.uint8)
    scored = cv2.erode(valid, SQUARE)  # (H, W)
    scores = np.full(num_classes, np.nan)
    for index in range(num_classes):
        edges = [_boundary(labels == index, valid) & scored
                 for labels in (prediction, label)]
        if edges[0].any() and edges[1].any():
            precision = _fraction_near(edges[0], edges[1], limit)
            recall = _fraction_near(edges[1], edges[0], limit)
            scores[index] = 2 * precision * recall / max(precision + recall, 1e-12)
        elif edges[0].any() or edges[1].any():
            scores[index] = 0
    return scores


def _boundary(mask: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask that touch valid pixels outside it, (H, W), uint8."""
    inside = mask.astype(np.uint8)
    outside = (1 - inside) & valid
    return inside & cv2.dilate(outside, CROSS)


def _fraction_near(edges: np.ndarray, others: np.ndarray, limit: float) -> float:
    """Return the fraction of edge pixels at most ``limit`` pixels away from others."""
    distance = cv2.distanceTransform(1 - others, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((distance[edges > 0] <= limit).mean())


class BoundaryMetric(BaseMetric):
    """Compute the boundary F-score in percent, see :func:`boundary_scores`.

    ``BF`` is the mean over the classes of each image, and then over images. ``mBF`` is
    the mean over the images that have a class, and then over classes.

    Args:
        tolerance: distance, as a fraction of the image's diagonal.
        ignore_index: label that is not scored.
        collect_device: 'cpu' or 'gpu', on which results are collected.
        prefix: prefix of the names of the measures.

    Raises:
        InputError: for a label of another size than the prediction.
    """

    default_prefix = ''  # the names stand alone

    def __init__(self, tolerance: float = 0.0075, ignore_index: int = 255,
                 collect_device: str = 'cpu', prefix: Optional[str] = None):
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.tolerance = tolerance
        self.ignore_index = ignore_index

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Score each image."""
        for sample in data_samples:
            prediction, label = (sample[name]['data'].squeeze(0)  # (H, W)
                                 for name in ('pred_sem_seg', 'gt_sem_seg'))
            check_equal_size(prediction, label)
            self.results.append(boundary_scores(
                prediction.cpu().numpy(), label.cpu().numpy(),
                len(self.dataset_meta['classes']), self.tolerance, self.ignore_index))

    def compute_metrics(self, results: List[np.ndarray]) -> Dict[str, float]:
        """Return the means over all images, in percent."""
        scores = np.array(results)  # (images, C)
        return dict(BF=100 * _mean(scores, 1), mBF=100 * _mean(scores, 0))


def _mean(scores: np.ndarray, axis: int) -> float:
    """Return the mean over an axis and then over the other, without NaN."""
    kept = scores[:, ~np.isnan(scores).all(0)]
    kept = kept[~np.isnan(kept).all(1)]
    return float(np.nanmean(kept, axis).mean()) if kept.size else float('nan')
