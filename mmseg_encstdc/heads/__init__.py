"""Decode and auxiliary heads."""
from .detail_head import DetailHead
from .enc_head import EncHead
from .seg_head import SegHead
from .stock import FCNHead, STDCHead

__all__ = ['DetailHead', 'EncHead', 'FCNHead', 'STDCHead', 'SegHead']
