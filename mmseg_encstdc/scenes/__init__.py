"""Scenes, the generated demo set, and what exists only for it."""
from .dataset import ScenesDataset
from .local_net import LocalNet
from .pair_accuracy import PairAccuracy

__all__ = ['LocalNet', 'PairAccuracy', 'ScenesDataset']
