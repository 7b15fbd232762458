"""Measures of a segmentation or classification, from integer counts."""
from .class_accuracy import ClassAccuracy
from .metric import ConfusionMetric, measures
from .pairs import PairAccuracy

__all__ = ['ClassAccuracy', 'ConfusionMetric', 'PairAccuracy', 'measures']
