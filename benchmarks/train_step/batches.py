"""The same random batch for every contender."""
from typing import List, NamedTuple

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from .shapes import Shape

__all__ = ['BLOCK', 'IGNORE', 'Batch', 'draw', 'draw_labels', 'samples']

BLOCK = 16  # side of a region of one class, pixels
IGNORE = 255
IGNORED = 0.05  # of the blocks


class Batch(NamedTuple):
    """What MMSegmentation's models take to train."""
    images: Tensor  # (B, 3, H, W), normalised
    samples: List[SegDataSample]  # labels (1, H, W) each


def draw(shape: Shape, classes: int, device: torch.device) -> Batch:
    """Noise as images, blocks of classes and of ignored pixels as labels."""
    random = torch.Generator().manual_seed(0)
    labels = draw_labels(shape, classes, random)
    images = torch.randn(shape.batch, 3, shape.height, shape.width,
                         generator=random)
    return Batch(images.to(device), samples(labels.to(device)))


def draw_labels(shape: Shape, classes: int,
                random: torch.Generator) -> Tensor:
    """Label maps (B, 1, H, W) of :data:`BLOCK` x BLOCK pixels of a class."""
    rows, columns = (-(-side // BLOCK) for side in shape[1:])
    size = (shape.batch, 1, rows, columns)
    blocks = torch.randint(0, classes, size, generator=random)
    ignored = torch.rand(size, generator=random) < IGNORED
    blocks[ignored] = IGNORE
    blocks[:, :, 0, 0] = IGNORE  # however small the map
    labels = blocks.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)
    return labels[:, :, :shape.height, :shape.width].contiguous()


def samples(labels: Tensor) -> List[SegDataSample]:
    """Label maps (B, 1, H, W) as MMSegmentation's heads take them."""
    return [SegDataSample(gt_sem_seg=PixelData(data=each)) for each in labels]
