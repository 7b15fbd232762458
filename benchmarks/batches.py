"""Draw random images and labels, the same for every contender."""
from typing import List, NamedTuple

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

BLOCK = 16  # side of a region of one class, pixels
IGNORE = 255
IGNORED = 0.05  # of the blocks


class Shape(NamedTuple):
    """Hold images (B, 3, H, W) and labels (B, 1, H, W)."""
    batch: int
    height: int
    width: int

    def __str__(self) -> str:
        return 'x'.join(map(str, self))


def draw_labels(shape: Shape, classes: int, random: torch.Generator) -> Tensor:
    """Return label maps (B, 1, H, W), BLOCK x BLOCK pixels of a class or ignored."""
    size = (shape.batch, 1, -(-shape.height // BLOCK), -(-shape.width // BLOCK))
    blocks = torch.randint(0, classes, size, generator=random)
    blocks[torch.rand(size, generator=random) < IGNORED] = IGNORE
    blocks[:, :, 0, 0] = IGNORE  # however small the map
    labels = blocks.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)
    return labels[:, :, :shape.height, :shape.width].contiguous()


def samples(labels: Tensor) -> List[SegDataSample]:
    """Return label maps (B, 1, H, W) as MMSegmentation's heads take them."""
    return [SegDataSample(gt_sem_seg=PixelData(data=each)) for each in labels]
