"""Define the generated demo set, its metric and its backbone."""
from .dataset import ScenesDataset
from .local_net import LocalNet
from .pair_accuracy import PairAccuracy

__all__ = ['LocalNet', 'PairAccuracy', 'ScenesDataset']
