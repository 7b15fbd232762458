"""Define the network that pre-trains the STDC backbones on ImageNet."""
from .stdc_classifier import STDCClassifier

__all__ = ['STDCClassifier']
