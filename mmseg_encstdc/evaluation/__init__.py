"""Measures of a segmentation, from integer counts of pixels."""
from .metric import ConfusionMetric, measures
from .pairs import PairAccuracy

__all__ = ['ConfusionMetric', 'PairAccuracy', 'measures']
