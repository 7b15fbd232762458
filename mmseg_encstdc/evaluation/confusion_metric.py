"""Compute the measures of a segmentation from its confusion matrix."""
import os
import os.path as osp
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import dump
from mmengine.logging import MMLogger, print_log
from PIL import Image
from prettytable import PrettyTable
from torch import Tensor

from ..errors import InputError

__all__ = ['ConfusionMetric', 'check_equal_size', 'measures']

MEANS = ('PA', 'mPA', 'mIoU', 'FWIoU')


def measures(confusion: np.ndarray) -> Dict[str, object]:
    """Compute the measures of a confusion matrix, as fractions.

    Args:
        confusion: pixels of class i predicted as class j, (C, C), int64.

    Returns:
        ``PA``, ``mPA``, ``mIoU``, ``FWIoU`` (float) and ``IoU``, ``Acc`` ((C, )
        float64). A class without a pixel in labels and predictions has the IoU NaN,
        one without a pixel in labels the accuracy NaN; the means leave NaN out.
    """
    hits = np.diag(confusion).astype(np.float64)  # (C, )
    labelled = confusion.sum(1).astype(np.float64)  # (C, )
    union = labelled + confusion.sum(0) - hits  # (C, )
    total = labelled.sum()
    with np.errstate(invalid='ignore', divide='ignore'):
        iou, accuracy = hits / union, hits / labelled
        weighted = np.where(labelled > 0, labelled * iou, 0)
        return dict(
            PA=float(hits.sum() / total), mPA=_mean_of_defined(accuracy),
            mIoU=_mean_of_defined(iou), FWIoU=float(weighted.sum() / total),
            IoU=iou, Acc=accuracy)


def _mean_of_defined(values: np.ndarray) -> float:
    """Return the mean of the numbers that are not NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float('nan')


class ConfusionMetric(BaseMetric):
    """Compute PA, mPA, mIoU and FWIoU in percent, and log the IoU of each class.

    Counts in int64, so the numbers are exact and the same for any number of processes.

    Args:
        ignore_index: label that is not scored.
        output_dir: folder for the predictions, 8-bit PNG, and for ``metrics.json``
            with all measures and the confusion matrix. None writes no files.
        format_only: only write the predictions, for images without labels.
        raw_ids: id to write for each class, such as that of the label files; None
            writes class ids.
        collect_device: 'cpu' or 'gpu', on which results are collected.
        prefix: prefix of the names of the measures.
        **kwargs: unused; accepted for configs of other metrics.

    Raises:
        ValueError: for ``format_only`` without ``output_dir``, and for labels or
            predictions outside the classes.
        InputError: when two images would be written to one file, and for a label of
            another size than the prediction.
    """

    default_prefix = ''  # the names stand alone

    def __init__(self, ignore_index: int = 255, output_dir: Optional[str] = None,
                 format_only: bool = False, collect_device: str = 'cpu',
                 prefix: Optional[str] = None,
                 raw_ids: Optional[Sequence[int]] = None, **kwargs):
        super().__init__(collect_device=collect_device, prefix=prefix)
        if format_only and output_dir is None:
            raise ValueError('format_only needs an output_dir to write to')
        self.ignore_index = ignore_index
        self.output_dir = output_dir
        self.format_only = format_only
        self.raw_ids = raw_ids
        self._written = {}  # stem -> image

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of each (label, prediction) in each image."""
        for sample in data_samples:
            prediction = sample['pred_sem_seg']['data'].squeeze(0)  # (H, W)
            if self.output_dir is not None:
                self._write(prediction, sample)
            if self.format_only:
                self.results.append(None)  # the evaluator needs one per image
            else:
                label = sample['gt_sem_seg']['data'].squeeze(0)  # (H, W)
                self.results.append(self._count(prediction, label))

    def compute_metrics(self, results: List[tuple]) -> Dict[str, float]:
        """Return the measures over all images, in percent."""
        if self.format_only:
            print_log(f'predictions are in {self.output_dir}',
                      MMLogger.get_current_instance())
            return {}
        classes = self.dataset_meta['classes']
        confusion = self.confusion(results, len(classes))
        result = measures(confusion)
        self._log_classes(result, classes)
        summary = {name: 100 * result[name] for name in MEANS}
        if self.output_dir is not None:
            os.makedirs(self.output_dir, exist_ok=True)
            content = dict(
                **{name: _number(value) for name, value in summary.items()},
                IoU=_by_class(classes, result['IoU']),
                Acc=_by_class(classes, result['Acc']),
                confusion=confusion.tolist())
            dump(content, osp.join(self.output_dir, 'metrics.json'), indent=1)
        return summary

    @staticmethod
    def confusion(results: List[tuple], num_classes: int) -> np.ndarray:
        """Return the confusion matrix (C, C), int64, from the results of images."""
        matrix = np.zeros(num_classes**2, np.int64)
        for cells, counts in results:
            matrix[cells] += counts
        return matrix.reshape(num_classes, num_classes)

    def _count(self, prediction: Tensor, label: Tensor) -> Tuple[np.ndarray, ...]:
        """Return the nonzero cells of an image's flat confusion matrix, and counts.

        Dense matrices of 150 x 150 would be sent between processes for each image.
        """
        check_equal_size(prediction, label)
        num_classes = len(self.dataset_meta['classes'])
        prediction = prediction.long()
        label = label.to(prediction.device).long()
        keep = label != self.ignore_index
        cells = (label * num_classes + prediction)[keep]
        for name, values in (('label', label[keep]), ('prediction', prediction[keep])):
            if values.numel() and not (0 <= int(values.min())
                                       and int(values.max()) < num_classes):
                raise ValueError(f'a {name} holds values {int(values.min())} to '
                                 f'{int(values.max())}, the data set has classes 0 to '
                                 f'{num_classes - 1}')
        counts = torch.bincount(cells, minlength=num_classes**2).cpu().numpy()
        nonzero = np.flatnonzero(counts)
        return nonzero, counts[nonzero]

    def _write(self, prediction: Tensor, sample: dict) -> None:
        """Write a prediction (H, W)."""
        os.makedirs(self.output_dir, exist_ok=True)
        ids = prediction.cpu().numpy().astype(np.uint8)
        if self.raw_ids is not None:
            ids = np.array(self.raw_ids, np.uint8)[ids]
        stem = osp.splitext(osp.basename(sample['img_path']))[0]
        first = self._written.setdefault(stem, sample['img_path'])
        if first != sample['img_path']:
            raise InputError(
                f'{first} and {sample["img_path"]} would both be written to '
                f'{stem}.png; evaluate their folders apart')
        Image.fromarray(ids).save(osp.join(self.output_dir, f'{stem}.png'))

    @staticmethod
    def _log_classes(result: dict, classes: Sequence[str]) -> None:
        """Log a line per class, and the classes that the means leave out."""
        logger = MMLogger.get_current_instance()
        table = PrettyTable(['class', 'IoU', 'accuracy'])
        for name, iou, accuracy in zip(classes, result['IoU'], result['Acc']):
            table.add_row([name, f'{100 * iou:.2f}', f'{100 * accuracy:.2f}'])
        print_log(f'IoU of each class, percent:\n{table}', logger)
        for measure, mean in (('IoU', 'mIoU'), ('Acc', 'mPA')):
            absent = [name for name, value in zip(classes, result[measure])
                      if np.isnan(value)]
            if absent:
                print_log(f'{mean} leaves out {len(absent)} classes that do not occur: '
                          f'{", ".join(absent)}', logger)


def _by_class(classes: Sequence[str], values: np.ndarray) -> Dict[str, Optional[float]]:
    """Return the percentage of each class by name, None for NaN."""
    return {name: _number(100 * float(value)) for name, value in zip(classes, values)}


def _number(value: float) -> Optional[float]:
    """Return None for NaN, which JSON does not have."""
    return None if np.isnan(value) else value


def check_equal_size(prediction: Tensor, label: Tensor) -> None:
    """Raise InputError unless a prediction (H, W) has the size of its label."""
    if prediction.shape != label.shape:
        raise InputError(
            f'a label is {_size(label)} but its prediction {_size(prediction)} '
            '(width x height); predictions have the size of the image file, so '
            'load labels after Resize in the pipeline')


def _size(label: Tensor) -> str:
    return f'{label.shape[1]} x {label.shape[0]}'
