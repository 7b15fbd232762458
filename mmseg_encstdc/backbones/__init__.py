"""Define the STDC backbone and its context path."""
from .stdc import STDCContextPathNet, STDCNet

__all__ = ['STDCContextPathNet', 'STDCNet']
