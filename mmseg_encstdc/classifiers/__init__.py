"""Classifiers: one label for a whole image, as backbones are pre-trained."""
from .stdc import STDCClassifier

__all__ = ['STDCClassifier']
