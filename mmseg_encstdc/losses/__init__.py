"""Define the losses of both networks, as functions and as modules."""
from .detail import DetailAggregateLoss, detail_edges, detail_target
from .dice import BinaryDiceLoss, binary_dice_loss
from .ohem import OhemCELoss, ohem_mean
from .pixel_losses import PixelLosses, PixelReduction, PixelWeighting
from .pixel_sampler import OHEMPixelSampler
from .semantic_encoding import SemanticEncodingLoss, presence_target

__all__ = [
    'BinaryDiceLoss', 'DetailAggregateLoss', 'OHEMPixelSampler', 'OhemCELoss',
    'PixelLosses', 'PixelReduction', 'PixelWeighting', 'SemanticEncodingLoss',
    'binary_dice_loss', 'detail_edges', 'detail_target', 'ohem_mean',
    'presence_target'
]
