"""Compute MMSegmentation's configs with or without the plugin's classes.

    MMSEG_ENCSTDC_OVERRIDE=0 python drop_in_run.py OUT.pt CONFIG...
    MMSEG_ENCSTDC_OVERRIDE=1 python drop_in_run.py OUT.pt CONFIG... --given STOCK.pt

Each network is filled with numbers that depend on the names of its parameters
alone, given one batch, and run forward in evaluation and a step in training. With
``--given``, the file of the first run says which names and shapes to load,
strictly; and MMSegmentation's own classes are made to raise, so that it is certain
who computes.
"""
import argparse
import contextlib
import zlib
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData

import mmseg_encstdc  # noqa: F401  # isort: skip (mmseg needs it)

from mmseg.models.decode_heads import EncHead, FCNHead, STDCHead
from mmseg.models.decode_heads.enc_head import Encoding
from mmseg.registry import MODELS
from mmseg.structures import OHEMPixelSampler, SegDataSample

SIZE = (72, 88)  # of the images; maps of odd sizes inside
CONSTANT = ('fusion_kernel', 'laplacian_kernel', 'num_batches_tracked')


def fill(name, value):
    """Numbers for a parameter or buffer, by its name; sizes as after training."""
    if name.endswith(CONSTANT):
        return value
    make = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    drawn = torch.randn(value.shape, generator=make)
    if name.endswith('running_var'):
        return 0.5 + drawn.abs()
    if name.endswith('.scale'):
        return -drawn.abs().clamp(max=1)
    if value.dim() > 1:
        return drawn * (2 / value[0].numel())**0.5
    return 0.1 * drawn + name.endswith('weight')


def batch(classes):
    """Two images and their label maps, in which pixels are ignored."""
    make = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (2, 1, *SIZE), generator=make)
    labels[torch.rand(labels.shape, generator=make) < 0.2] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label))
               for label in labels]
    return torch.randn(2, 3, *SIZE, generator=make), samples


def build(path):
    cfg = Config.fromfile(path)
    cfg.model.pretrained = None
    model = MODELS.build(cfg.model)
    return model, [f'{type(part).__module__}.{type(part).__name__}'
                   for module in model.modules()
                   for part in (module, getattr(module, 'sampler', None)) if part]


def run(path, given):
    """Everything that is compared, of one config."""
    model, parts = build(path)
    with_shapes = given or model.state_dict()
    model.load_state_dict(
        {name: fill(name, model.state_dict().get(name, value))
         for name, value in with_shapes.items()}, strict=True)
    images, samples = batch(model.decode_head.num_classes)
    with torch.no_grad():
        logits = model.eval().encode_decode(
            images, [dict(img_shape=SIZE, pad_shape=SIZE)] * 2)
    torch.manual_seed(0)
    losses = model.train().loss(images, samples)
    model.parse_losses(losses)[0].backward()
    return dict(
        parts=sorted(set(parts)), logits=logits,
        state={name: value.to('meta')
               for name, value in model.state_dict().items()},
        losses={name: value.detach() for name, value in losses.items()},
        gradients={name: value.grad.norm()
                   for name, value in model.named_parameters()
                   if value.grad is not None})


@contextlib.contextmanager
def stock_raises():
    """MMSegmentation's Encoding, sampler and losses of heads do not run."""
    def refuse(*args, **kwargs):
        raise AssertionError("MMSegmentation's own code ran")
    with contextlib.ExitStack() as stack:
        for owner, name in ((Encoding, 'forward'), (OHEMPixelSampler, 'sample'),
                            (EncHead, 'loss_by_feat'), (STDCHead, 'loss_by_feat'),
                            (FCNHead, 'loss_by_feat')):
            stack.enter_context(mock.patch.object(owner, name, refuse))
        yield


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out')
    parser.add_argument('configs', nargs='+')
    parser.add_argument('--given')
    args = parser.parse_args()
    init_default_scope('mmseg')
    torch.set_num_threads(1)
    given = torch.load(args.given) if args.given else {}
    with stock_raises() if args.given else contextlib.nullcontext():
        torch.save({path: run(path, given.get(path, {}).get('state'))
                    for path in args.configs}, args.out)


if __name__ == '__main__':
    main()
