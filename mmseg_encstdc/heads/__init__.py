"""Define the decode and auxiliary heads."""
from .detail_head import DetailHead
from .enc_head import EncHead
from .mmseg_heads import FCNHead, STDCHead
from .seg_head import SegHead

__all__ = ['DetailHead', 'EncHead', 'FCNHead', 'STDCHead', 'SegHead']
