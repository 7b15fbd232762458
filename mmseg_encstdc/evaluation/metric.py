"""Pixel accuracy, mean accuracy, IoU, mean IoU, frequency-weighted IoU."""
import os
import os.path as osp
from typing import Dict, List, Optional, Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import dump
from mmengine.logging import MMLogger, print_log
from PIL import Image
from prettytable import PrettyTable

from ..errors import InputError

__all__ = ['ConfusionMetric', 'measures']


def measures(confusion: np.ndarray) -> Dict[str, object]:
    """The measures of a confusion matrix, as fractions of 1.

    Args:
        confusion (ndarray): pixels of true class i predicted as j, (C, C),
            int64.

    Returns:
        dict: ``PA``, ``mPA``, ``mIoU``, ``FWIoU`` (float); ``IoU``, ``Acc``
        ((C, ) float64, NaN where undefined). A class with no pixel in labels
        and predictions has no IoU, one with none in the labels no accuracy;
        the means leave them out.
    """
    hit = np.diag(confusion).astype(np.float64)  # (C, )
    labelled = confusion.sum(1).astype(np.float64)
    union = labelled + confusion.sum(0) - hit
    total = labelled.sum()
    with np.errstate(invalid='ignore', divide='ignore'):
        iou, accuracy = hit / union, hit / labelled
        return dict(
            PA=float(hit.sum() / total),
            mPA=_mean_of_defined(accuracy),
            mIoU=_mean_of_defined(iou),
            FWIoU=float(
                np.where(labelled > 0, labelled * iou, 0).sum() / total),
            IoU=iou,
            Acc=accuracy)


def _mean_of_defined(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float('nan')


class ConfusionMetric(BaseMetric):
    """PA, mPA, IoU of each class, mIoU and FWIoU, in percent.

    Counts are int64 from the first pixel to the last, in one process or
    several, so the figures depend on neither. Logs one line a class and says
    which classes were left out of the means.

    Args:
        ignore_index (int): label that is not scored. Default: 255.
        output_dir (str, optional): write predictions there as 8-bit PNG,
            and ``metrics.json`` with all measures and the confusion matrix.
        format_only (bool): only write predictions; for images without
            labels. Default: False.
        collect_device (str): 'cpu' or 'gpu'. Default: 'cpu'.
        prefix (str, optional): put before the names of the measures.

    Raises:
        ValueError: for ``format_only`` without ``output_dir``, and for
            predictions outside the classes.
    """

    default_prefix = ''  # the names below stand alone

    def __init__(self,
                 ignore_index: int = 255,
                 output_dir: Optional[str] = None,
                 format_only: bool = False,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None,
                 **kwargs):
        super().__init__(collect_device=collect_device, prefix=prefix)
        if format_only and output_dir is None:
            raise ValueError('format_only needs an output_dir to write to')
        self.ignore_index = ignore_index
        self.output_dir = output_dir
        self.format_only = format_only
        self._written = {}  # stem -> image, to notice two of one name

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of each (label, prediction), image by image."""
        for sample in data_samples:
            prediction = sample['pred_sem_seg']['data'].squeeze(0)  # (H, W)
            if self.output_dir is not None:
                self._write(prediction, sample)
            if self.format_only:
                self.results.append(None)  # keeps the number of images
            else:
                label = sample['gt_sem_seg']['data'].squeeze(0)
                self.results.append(self._count(prediction, label))

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """The measures over all images, in percent."""
        logger = MMLogger.get_current_instance()
        if self.format_only:
            print_log(f'predictions are in {self.output_dir}', logger)
            return {}
        classes = self.dataset_meta['classes']
        confusion = self.confusion(results, len(classes))
        result = measures(confusion)
        self._log_classes(result, classes, logger)
        summary = {
            name: 100 * result[name]
            for name in ('PA', 'mPA', 'mIoU', 'FWIoU')
        }
        if self.output_dir is not None:
            os.makedirs(self.output_dir, exist_ok=True)
            dump(
                dict(
                    **{name: _number(v) for name, v in summary.items()},
                    IoU=_by_class(classes, result['IoU']),
                    Acc=_by_class(classes, result['Acc']),
                    confusion=confusion.tolist()),
                osp.join(self.output_dir, 'metrics.json'),
                indent=1)
        return summary

    @staticmethod
    def confusion(results: List[tuple], num_classes: int) -> np.ndarray:
        """Sum of the images' counts, (C, C), int64."""
        matrix = np.zeros(num_classes**2, np.int64)
        for cells, counts in results:
            matrix[cells] += counts
        return matrix.reshape(num_classes, num_classes)

    def _count(self, prediction: torch.Tensor, label: torch.Tensor) -> tuple:
        """Cells of the flat confusion matrix that an image touches.

        Sparse, because 2000 matrices of 150 x 150 would travel between
        processes otherwise.
        """
        num_classes = len(self.dataset_meta['classes'])
        prediction = prediction.long()
        label = label.to(prediction.device).long()
        keep = label != self.ignore_index
        cells = (label * num_classes + prediction)[keep]
        for name, values in (('label', label[keep]),
                             ('prediction', prediction[keep])):
            if values.numel() and not (0 <= int(values.min())
                                       and int(values.max()) < num_classes):
                raise ValueError(
                    f'a {name} holds values {int(values.min())} to '
                    f'{int(values.max())}, the data set has classes 0 to '
                    f'{num_classes - 1}')
        counts = torch.bincount(cells, minlength=num_classes**2).cpu().numpy()
        touched = np.flatnonzero(counts)
        return touched, counts[touched]

    def _write(self, prediction: torch.Tensor, sample: dict) -> None:
        os.makedirs(self.output_dir, exist_ok=True)
        ids = prediction.cpu().numpy().astype(np.uint8)
        if sample.get('reduce_zero_label', False):
            ids = ids + 1  # back to the ids of the files
        stem = osp.splitext(osp.basename(sample['img_path']))[0]
        first = self._written.setdefault(stem, sample['img_path'])
        if first != sample['img_path']:
            raise InputError(
                f'{first} and {sample["img_path"]} would both be written to '
                f'{stem}.png; evaluate their folders apart')
        Image.fromarray(ids).save(osp.join(self.output_dir, f'{stem}.png'))

    @staticmethod
    def _log_classes(result: dict, classes: Sequence[str], logger) -> None:
        table = PrettyTable(['class', 'IoU', 'accuracy'])
        for name, iou, accuracy in zip(classes, result['IoU'], result['Acc']):
            table.add_row([name, f'{100 * iou:.2f}', f'{100 * accuracy:.2f}'])
        print_log(f'IoU of each class, percent:\n{table}', logger)
        for measure, means in (('IoU', 'mIoU'), ('Acc', 'mPA')):
            absent = [
                name for name, value in zip(classes, result[measure])
                if np.isnan(value)
            ]
            if absent:
                print_log(
                    f'{means} leaves out {len(absent)} classes that do not '
                    f'occur: {", ".join(absent)}', logger)


def _by_class(classes: Sequence[str], values: np.ndarray) -> dict:
    """Class -> percent, None where undefined."""
    return {
        name: _number(100 * float(value))
        for name, value in zip(classes, values)
    }


def _number(value: float) -> Optional[float]:
    """None for NaN, which JSON does not have."""
    return None if np.isnan(value) else value
