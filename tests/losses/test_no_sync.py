"""Losses and targets of a training step do not make the host wait for a GPU."""
from contextlib import contextmanager

import pytest
import torch
from comparisons import samples

from mmseg_encstdc.heads import (
    DetailHead,
    EncHead,
    FCNHead,
    SegHead,
    STDCHead,
)

STEPS = 10
CLASSES = 7
BN = dict(type='BN')

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason='needs a CUDA device')
]


def enc_head(loss_se_decode):
    return EncHead(
        in_channels=(8, 12, 16), in_index=(1, 2, 3), channels=12, num_codes=5,
        num_classes=CLASSES, norm_cfg=BN, align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
        loss_se_decode=loss_se_decode)


def seg_head(**loss_decode):
    return SegHead(
        in_channels=16, channels=8, num_classes=CLASSES, norm_cfg=BN,
        align_corners=True, loss_decode=loss_decode)


def fcn_head(sampler, class_weight=None):
    return FCNHead(
        in_channels=16, channels=8, num_convs=1, num_classes=CLASSES, norm_cfg=BN,
        sampler=sampler,
        loss_decode=dict(type='CrossEntropyLoss', class_weight=class_weight))


HEADS = {
    'EncHead': lambda: enc_head(dict(type='SemanticEncodingLoss')),
    'SegHead, OHEM': lambda: seg_head(type='OhemCELoss'),
    'SegHead, OHEM of a count': lambda: seg_head(
        type='OhemCELoss', min_kept=500),
    'SegHead, cross entropy': lambda: seg_head(
        type='CrossEntropyLoss', avg_non_ignore=True),
    'FCNHead, OHEMPixelSampler': lambda: fcn_head(
        dict(type='OHEMPixelSampler', thresh=0.7, min_kept=500)),
    'FCNHead, class weights': lambda: fcn_head(None, [1.] * CLASSES),
    'STDCHead': lambda: STDCHead(
        in_channels=16, channels=8, num_convs=1, num_classes=2, norm_cfg=BN,
        align_corners=True, loss_decode=[
            dict(type='CrossEntropyLoss', use_sigmoid=True),
            dict(type='DiceLoss')]),
    'DetailHead': lambda: DetailHead(16, 8, norm_cfg=BN),
}


@contextmanager
def no_waiting():
    """Let CUDA calls that wait for the GPU raise RuntimeError."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')


def logits_of(head, batch, size):
    """Return random output of a head's forward, and its leaf tensors."""
    shape = (batch, head.out_channels, *(side // 8 for side in size))
    maps = torch.randn(shape, device='cuda', requires_grad=True)
    if not isinstance(head, EncHead):
        return maps, [maps]
    presence = torch.randn(shape[:2], device='cuda', requires_grad=True)
    return (maps, presence), [maps, presence]


def label_samples(batch, size):
    labels = torch.randint(0, CLASSES, (batch, 1, *size), device='cuda')
    labels[:, :, :5, :7] = 255
    return samples(labels)


def test_no_waiting_raises_at_synchronization():
    value = torch.ones((), device='cuda')
    with pytest.raises(RuntimeError, match='synchroniz'), no_waiting():
        value.item()
    value.item()


@pytest.mark.parametrize('name', HEADS)
def test_losses_and_gradients_do_not_wait(name):
    batch, size = 2, (64, 96)
    head, data = HEADS[name]().cuda(), label_samples(batch, size)
    output, leaves = logits_of(head, batch, size)

    def step():
        losses = head.loss_by_feat(output, data)
        return torch.autograd.grad(
            sum(v for key, v in losses.items() if 'loss' in key), leaves)

    step()  # tensors made once may wait
    with no_waiting():
        for _ in range(STEPS):
            gradients = step()
    assert all(torch.isfinite(each).all() for each in gradients)


@pytest.mark.parametrize('name', HEADS)
def test_training_step_of_head_does_not_wait(name):
    batch, size = 2, (64, 96)
    head, data = HEADS[name]().cuda().train(), label_samples(batch, size)
    features = [
        torch.randn(batch, channels, size[0] // 8, size[1] // 8, device='cuda')
        for channels in (4, 8, 12, 16)]
    optimizer = torch.optim.SGD(head.parameters(), 1e-3)

    def step():
        optimizer.zero_grad(set_to_none=True)
        losses = head.loss(features, data, {})
        sum(v for key, v in losses.items() if 'loss' in key).backward()
        optimizer.step()

    step()
    with no_waiting():
        for _ in range(STEPS):
            step()
    assert all(torch.isfinite(p).all() for p in head.parameters())
