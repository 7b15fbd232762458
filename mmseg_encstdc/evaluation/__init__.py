"""Measures of a segmentation or classification, from integer counts."""
from .class_accuracy import ClassAccuracy
from .metric import ConfusionMetric, measures

__all__ = ['ClassAccuracy', 'ConfusionMetric', 'measures']
