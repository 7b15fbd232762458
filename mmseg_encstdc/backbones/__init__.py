"""Backbones: STDC and its context path, and a baseline without context."""
from .local import LocalNet
from .stdc import STDCContextPathNet, STDCNet

__all__ = ['LocalNet', 'STDCContextPathNet', 'STDCNet']
