"""Measures of a segmentation, from an integer confusion matrix."""
from .metric import ConfusionMetric, measures

__all__ = ['ConfusionMetric', 'measures']
