"""Backbones: STDC and its context path."""
from .stdc import STDCContextPathNet, STDCNet

__all__ = ['STDCContextPathNet', 'STDCNet']
