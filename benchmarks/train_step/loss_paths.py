"""The loss path alone: from the logits of a head to their gradient."""
from pathlib import Path
from typing import Callable, List, NamedTuple, Tuple

import torch
import torch.nn.functional as F
from common.backends import available, forced
from torch import Tensor

from mmseg_encstdc.ops.backend import BACKENDS

from . import batches, stock
from .networks import model_config
from .shapes import Shape

__all__ = ['CASES', 'LossPath', 'contenders']

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
STRIDE = 8  # of the logits
TINY = 64  # height and width of the first labels
CHANNELS = 8  # of the heads, whose convolutions do not run
MARGIN = 4.  # by which a logit of the right class is larger


class Case(NamedTuple):
    """Heads of one kind that read one label map."""
    config: str  # the file whose segmentation head it is
    heads: int
    shape: Shape  # of the labels
    quick: Shape


CASES = dict(
    stdc=Case('stdc1_seg75_cityscapes.py', 3, Shape(4, 512, 1024),
              Shape(2, 128, 256)),
    encnet=Case('encnet_r50_ade.py', 2, Shape(2, 512, 512),
                Shape(2, 128, 128)))


class LossPath:
    """Losses of all heads and the gradients of their logits.

    The logits are random, larger at the right class: about half of the pixels
    are hard, as in the middle of a training.

    Args:
        contender (str): 'plain' is the mean cross entropy of the resized
            logits and nothing else; 'stock' is MMSegmentation's head with what
            it mines and reports; 'ours' is this project's.
        case (str): a name in :data:`CASES`.
        shape (str): of the labels, BxHxW.
        device (str): cpu or cuda[:INDEX].
    """

    def __init__(self, contender: str, case: str, shape: str, device: str):
        self.shape, self.device = Shape.parse(shape), torch.device(device)
        self.heads = CASES[case].heads
        head = segmentation_head(CONFIGS / CASES[case].config)
        self.classes = head['num_classes']
        self.contender = contender
        self.loss = loss_of(contender, head, self.shape)
        self.logits, self.labels = self.draw(self.shape)

    def draw(self, shape: Shape):
        """Logits (B, C, H / 8, W / 8) of each head, and labels (B, 1, H, W)."""
        random = torch.Generator().manual_seed(0)
        labels = batches.draw_labels(shape, self.classes, random)
        coarse = labels[:, 0, ::STRIDE, ::STRIDE]
        right = F.one_hot(coarse.masked_fill(coarse == batches.IGNORE, 0),
                          self.classes).permute(0, 3, 1, 2)
        logits = [
            (torch.randn(right.shape, generator=random) + MARGIN * right).to(
                self.device).requires_grad_() for _ in range(self.heads)]
        return logits, labels.to(self.device)

    @property
    def inputs(self) -> int:
        """Bytes of the logits and the labels."""
        return self.labels.nbytes + sum(each.nbytes for each in self.logits)

    def warm_up(self) -> None:
        """Losses and gradients at a tiny size."""
        self.differentiate(*self.draw(Shape(self.shape.batch, TINY, TINY)))

    def step(self) -> List[Tensor]:
        """The gradients of the logits."""
        return self.differentiate(self.logits, self.labels)

    def release(self) -> None:
        """Nothing stays after a step."""

    def differentiate(self, logits: List[Tensor],
                      labels: Tensor) -> List[Tensor]:
        with forced(self.contender):
            total = sum(self.loss(each, labels) for each in logits)
            return torch.autograd.grad(total, logits)


def contenders(device: torch.device) -> Tuple[str, ...]:
    """Names of what can run on a device; on a GPU ours with each backend."""
    if device.type == 'cpu':
        return 'plain', 'stock', 'ours'
    return 'plain', 'stock', *available('upsampled_cross_entropy', device)


def segmentation_head(config: Path) -> dict:
    """The first SegHead of a config, cut down to what its loss needs."""
    model = model_config(str(config))
    others = model['auxiliary_head']
    heads = [model['decode_head'],
             *([others] if isinstance(others, dict) else others)]
    head = next(each for each in heads if each['type'] == 'SegHead')
    return stock.alone({**head, 'in_channels': CHANNELS, 'channels': CHANNELS,
                        'in_index': 0})


def loss_of(contender: str, head: dict, shape: Shape) -> Callable:
    """The loss of logits and labels (B, 1, H, W) of a contender."""

    def plain(logits, labels):
        logits = F.interpolate(logits, labels.shape[2:], mode='bilinear',
                               align_corners=head['align_corners'])
        return F.cross_entropy(logits, labels[:, 0], ignore_index=batches.IGNORE)

    if contender == 'plain':
        return plain
    if contender == 'stock':
        module = stock.build(stock.translate(head, shape).config)
        stock.check_is_stock(module)
        return by_head(module)
    if contender not in ('ours', *BACKENDS):
        raise ValueError(f'{contender} is no contender')
    return by_head(stock.build(head))


def by_head(module) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a decode head, with all that it computes on the way."""

    def loss(logits, labels):
        losses = module.loss_by_feat(logits, batches.samples(labels))
        return sum(v for key, v in losses.items() if 'loss' in key)

    return loss
