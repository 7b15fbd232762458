"""Measure a training step of MMSegmentation's configs with and without the plugin.

Each config is trained on one random batch in two processes: MMSegmentation's own
classes compute in one (stock), this package's in the other (ours). SyncBN is BN, and
no weights are loaded. Memory is the peak of a step over weights, momentum and batch.
"""
import argparse
from functools import partial
from pathlib import Path
from typing import Tuple

import batches
import harness
import mmseg
import options
import processes
import record
import torch
from batches import Shape
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from processes import Contender
from torch import nn

from mmseg_encstdc.compat import OVERRIDE
from mmseg_encstdc.engine.configs import CONFIG_ERRORS, load_config
from mmseg_encstdc.errors import InputError, as_input_error

STOCK = Path(mmseg.__file__).parent / '.mim' / 'configs'
QUICK = Shape(2, 128, 128)
ROUNDS = 7
MOST_CLASSES = 255  # 255 itself is ignored
SGD = dict(lr=1e-3, momentum=0.9, weight_decay=5e-4)
HALF = dict(cuda=torch.float16, cpu=torch.bfloat16)  # of --amp


class Trainer:
    """Hold a network, its optimizer and a batch; a call is a training step.

    Args:
        model: config of the network.
        ours: whether this package's classes must be in it, or none of them.
        config: what to name when the network cannot be built.
        shape: of the batch.
        device: where it computes.
        amp: autocast, on a GPU with a scaled loss.

    Raises:
        InputError: when the network cannot be built, or is made of other classes.
    """

    def __init__(self, model: dict, ours: bool, config: str, shape: Shape,
                 device: torch.device, amp: bool):
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True  # as the configs have it
        init_default_scope('mmseg')
        classes = 'mmseg_encstdc' if ours else "MMSegmentation's classes alone"
        with as_input_error(f'config {config} with {classes}', CONFIG_ERRORS):
            network = MODELS.build({**model, 'pretrained': None})
        check_classes(network, ours, config)
        self.network = revert_sync_batchnorm(network).to(device).train()
        self.device, self.amp = device, amp
        self.optimizer = torch.optim.SGD(
            [p for p in self.network.parameters() if p.requires_grad], **SGD)
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=amp and device.type == 'cuda')
        random = torch.Generator().manual_seed(0)
        labels = batches.draw_labels(shape, network.decode_head.num_classes, random)
        images = torch.randn(shape.batch, 3, *shape[1:], generator=random)
        self.images = images.to(device)
        self.samples = batches.samples(labels.to(device))

    def __call__(self) -> None:
        with torch.autocast(self.device.type, HALF[self.device.type],
                            enabled=self.amp):
            losses = self.network(self.images, self.samples, mode='loss')
            total, _ = self.network.parse_losses(losses)
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()  # so that no gradient is there before a step


def check_classes(network: nn.Module, ours: bool, config: str) -> None:
    """Raise InputError unless a network has classes of this package, or has none."""
    parts = [part for module in network.modules()
             for part in (module, getattr(module, 'sampler', None)) if part is not None]
    found = {type(part).__name__ for part in parts
             if type(part).__module__.split('.')[0] == 'mmseg_encstdc'}
    if found and not ours:
        raise InputError(f'config {config} is made of {", ".join(sorted(found))} of '
                         "mmseg_encstdc; give one of MMSegmentation's own")
    if ours and not found:
        raise InputError(f'config {config} has nothing that mmseg_encstdc replaces')


# --- Configs --------------------------------------------------------------------


def config_file(config: str) -> str:
    """Return the file of a config; mmseg::NAME is one of MMSegmentation's."""
    package, mark, name = config.partition('::')
    return str(STOCK / name) if mark and package == 'mmseg' else config


def read(config: str, classes: int) -> Tuple[dict, tuple]:
    """Return the model of a config for a number of classes, and its batch shape.

    Args:
        config: a file, or mmseg::NAME.
        classes: None leaves the config's.

    Returns:
        The config of the model; the shape is None where the config does not say it.

    Raises:
        InputError: when it is no config, or has no decode head.
    """
    cfg = load_config(config_file(config))
    model = cfg.model.to_dict()
    if not isinstance(model.get('decode_head'), dict):
        raise InputError(f'config {config} has no model.decode_head; give one of a '
                         'segmentation network')
    others = model.get('auxiliary_head') or []
    others = [others] if isinstance(others, dict) else others
    for head in [model['decode_head'], *others]:
        if classes and head['type'] != 'STDCHead':
            head['num_classes'] = classes
    batch = (cfg.get('train_dataloader') or {}).get('batch_size')
    crop = cfg.get('crop_size')
    return model, Shape(batch, *crop) if batch and crop else None


# --- Command --------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand train."""
    parser.set_defaults(run=run)
    parser.add_argument(
        'configs', nargs='+', metavar='CONFIG',
        help="a file, or one of MMSegmentation's such as mmseg::encnet/"
        'encnet_r50-d8_4xb4-80k_ade20k-512x512.py; with --name all go into one result')
    shapes = parser.add_mutually_exclusive_group()
    shapes.add_argument(
        '--shape', type=read_shape, metavar='BxHxW',
        help="of the batch; default: the config's batch size and crop")
    shapes.add_argument('--quick', action='store_const', dest='shape', const=QUICK,
                        help=f'--shape {QUICK}')
    parser.add_argument('--classes', type=options.between(2, MOST_CLASSES), metavar='N',
                        help="default: the config's")
    parser.add_argument('--amp', action='store_true', help='autocast: float16 with a '
                        'scaled loss on a GPU, bfloat16 on a CPU')
    options.add_arguments(parser, ROUNDS, 'train_cpu_CONFIG or train_GPU_CONFIG, with '
                          'shape, classes and amp where asked for')


def read_shape(text: str) -> Shape:
    """Read BxHxW."""
    return Shape(*options.numbers(text, 'BxHxW'))


def run(args: argparse.Namespace) -> None:
    """Run the subcommand train."""
    words = [args.shape and str(args.shape), args.classes and f'{args.classes}classes',
             'amp' if args.amp else '']
    planned = []
    for config in args.configs:  # all of them, before the first is measured
        model, shape = read(config, args.classes)
        if not (args.shape or shape):
            raise InputError(f'config {config} has no crop_size or no '
                             'train_dataloader.batch_size; give --shape BxHxW')
        path = options.result_file(args, 'train', Path(config).stem, *words)
        planned.append((config, model, args.shape or shape, path))
    results = []
    for config, model, shape, path in planned:
        print(f'{config}, {shape} ...', flush=True)
        results.append(measure(args, config, model, shape))
        together = args.name and len(planned) > 1
        record.write(path.stem, dict(networks=results) if together else results[-1],
                     kind=args.device.type)
        print(f'written to {path}', flush=True)


def measure(args: argparse.Namespace, config: str, model: dict, shape: Shape) -> dict:
    """Return the result of one config, and print it."""
    contenders = {
        name: Contender(partial(Trainer, model, name == 'ours', config, shape,
                                args.device, args.amp), {OVERRIDE: override})
        for name, override in (('stock', '0'), ('ours', '1'))}
    figures = processes.contest(contenders, args.device, args.rounds,
                                not args.no_memory, f'--shape {shape}')
    compared = dict(stock_over_ours=processes.ratios(figures, 'stock', 'ours'))
    print(processes.contest_table(f'{config}, {shape}', figures, compared))
    return harness.rounded(dict(
        config=config, shape=str(shape), **shape._asdict(),
        classes=model['decode_head']['num_classes'], amp=args.amp, rounds=args.rounds,
        **compared, **figures))
