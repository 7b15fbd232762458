"""Define the metrics of segmentation and classification."""
from .boundary_metric import BoundaryMetric, boundary_scores
from .class_accuracy import ClassAccuracy
from .confusion_metric import ConfusionMetric, measures

__all__ = ['BoundaryMetric', 'ClassAccuracy', 'ConfusionMetric', 'boundary_scores',
           'measures']
