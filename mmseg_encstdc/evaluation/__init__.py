"""Define the metrics of segmentation and classification, from integer counts."""
from .class_accuracy import ClassAccuracy
from .confusion_metric import ConfusionMetric, measures

__all__ = ['ClassAccuracy', 'ConfusionMetric', 'measures']
