"""Measure time and memory of the heads' losses, from logits to their gradients.

Compares plain cross entropy of enlarged logits, MMSegmentation's head with its OHEM
and accuracy (stock), and this package's; on a GPU with each backend. Logits have an
eighth of the labels' size. Memory is the peak over logits and labels.
"""
import argparse
from functools import partial
from typing import Callable, List, NamedTuple, Tuple

import batches
import harness
import options
import processes
import record
import torch
import torch.nn.functional as F
from batches import Shape
from processes import Contender
from torch import Tensor

from mmseg_encstdc.heads import SegHead  # first: makes mmseg importable

from mmengine.registry import init_default_scope  # isort: skip
from mmseg.models.decode_heads.fcn_head import FCNHead
from mmseg.structures.sampler.ohem_pixel_sampler import OHEMPixelSampler

STRIDE = 8  # of the logits
MARGIN = 4.  # by which the logit of the label is larger
# Arguments of the heads; their convolutions do not run.
CHANNELS = dict(in_channels=8, channels=8)
THRESHOLD, KEPT = 0.7, 1 / 16  # of OHEM: probability, and least part of the pixels
ROUNDS = 7


class Case(NamedTuple):
    """Describe heads of one kind and their label map."""
    heads: int
    classes: int
    align_corners: bool
    ohem: bool
    shape: Shape  # of the labels
    quick: Shape


CASES = dict(
    stdc=Case(3, 19, True, True, Shape(4, 512, 1024), Shape(2, 128, 256)),
    encnet=Case(2, 150, True, False, Shape(2, 512, 512), Shape(2, 128, 128)))


class LossStep:
    """Compute the losses of all heads and the gradients of their logits.

    About half of the pixels are hard, as in the middle of a training.

    Args:
        name: 'plain', 'stock', 'ours' or a backend, with which ours computes.
        case: heads and classes.
        shape: of the labels.
        device: where it computes.
    """

    def __init__(self, name: str, case: Case, shape: Shape, device: torch.device):
        init_default_scope('mmseg')
        random = torch.Generator().manual_seed(0)
        labels = batches.draw_labels(shape, case.classes, random)
        coarse = labels[:, 0, ::STRIDE, ::STRIDE]
        hot = F.one_hot(coarse.where(coarse != batches.IGNORE, 0), case.classes)
        hot = MARGIN * hot.permute(0, 3, 1, 2)  # (B, C, H / 8, W / 8)
        self.name, self.labels = name, labels.to(device)
        self.logits = [(torch.randn(hot.shape, generator=random) + hot).to(
            device).requires_grad_() for _ in range(case.heads)]
        make = dict(plain=plain_loss, stock=stock_loss).get(name, our_loss)
        self.loss = make(case, shape)

    def __call__(self) -> Tuple[Tensor, ...]:
        with harness.forced(self.name):
            total = sum(self.loss(each, self.labels) for each in self.logits)
            return torch.autograd.grad(total, self.logits)


def plain_loss(case: Case, shape: Shape) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the mean cross entropy of logits (B, C, h, w) and labels (B, 1, H, W)."""
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        logits = F.interpolate(logits, labels.shape[2:], mode='bilinear',
                               align_corners=case.align_corners)
        return F.cross_entropy(logits, labels[:, 0], ignore_index=batches.IGNORE)
    return loss


def stock_loss(case: Case, shape: Shape) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of MMSegmentation's head; its OHEM keeps pixels of an image."""
    kept = int(KEPT * shape.height * shape.width)
    ohem = dict(sampler=dict(type=OHEMPixelSampler, thresh=THRESHOLD, min_kept=kept))
    return head_loss(FCNHead, case, ohem)


def our_loss(case: Case, shape: Shape) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of this package's head; its OHEM keeps pixels of the batch."""
    ohem = dict(loss_decode=dict(type='OhemCELoss', thresh=THRESHOLD, min_kept=KEPT))
    return head_loss(SegHead, case, ohem)


def head_loss(kind: type, case: Case, ohem: dict) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of a decode head, with all that it computes on the way.

    Args:
        kind: the class of the head.
        case: decides the arguments of the head.
        ohem: further arguments, where the case has OHEM.
    """
    plain = dict(loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True))
    head = kind(num_classes=case.classes, align_corners=case.align_corners,
                **(ohem if case.ohem else plain), **CHANNELS)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        losses = head.loss_by_feat(logits, batches.samples(labels))
        return sum(value for key, value in losses.items() if 'loss' in key)
    return loss


def contenders(device: torch.device) -> List[str]:
    """Return the contenders on a device; on a GPU one of ours for each backend."""
    ours = ['ours'] if device.type == 'cpu' else harness.backends(
        'upsampled_cross_entropy', device)
    return ['plain', 'stock', *ours]


# --- Command --------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand losses."""
    parser.set_defaults(run=run)
    parser.add_argument('--case', choices=[*CASES], help='; '.join(
        f'{name}: {case.heads} heads, {case.classes} classes, labels {case.shape}'
        for name, case in CASES.items()) + '; default: all')
    parser.add_argument('--quick', action='store_true', help='small labels')
    options.add_arguments(parser, ROUNDS, 'losses_cpu or losses_GPU, with the case and '
                          '_quick where asked for')


def run(args: argparse.Namespace) -> None:
    """Run the subcommand losses; the result is written after every case."""
    path = options.result_file(args, 'losses', args.case, 'quick' if args.quick else '')
    results = []
    for name in [args.case] if args.case else CASES:
        case = CASES[name]
        shape = case.quick if args.quick else case.shape
        results.append(measure(args, name, case, shape))
        record.write(path.stem, dict(cases=results), kind=args.device.type)
    print(f'written to {path}')


def measure(args: argparse.Namespace, name: str, case: Case, shape: Shape) -> dict:
    """Return the result of one case, and print it."""
    names = contenders(args.device)
    figures = processes.contest(
        {each: Contender(partial(LossStep, each, case, shape, args.device))
         for each in names}, args.device, args.rounds, not args.no_memory,
        f'--case {name} at {shape}')
    pairs = [('stock', 'plain')]
    for ours in names[2:]:
        pairs += [('stock', ours), (ours, 'plain')]
    compared = {f'{above}_over_{below}': processes.ratios(figures, above, below)
                for above, below in pairs}
    title = f'{name}: {case.heads} heads, {case.classes} classes, labels {shape}'
    print(processes.contest_table(title, figures, compared), flush=True)
    return harness.rounded(dict(
        case=name, heads=case.heads, classes=case.classes, shape=str(shape),
        **shape._asdict(), stride=STRIDE, rounds=args.rounds, ratios=compared,
        **figures))
