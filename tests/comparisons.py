"""Compare networks and losses with MMSegmentation's."""
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample


def perturb(module):
    """Change every parameter and running statistic from its initial value."""
    for name, value in module.state_dict().items():
        if name.endswith('running_var'):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point():
            value.add_(0.1 * torch.randn_like(value))
    return module


def assert_same(got, expected, tolerance, name=''):
    """Compare to an absolute tolerance of ``tolerance`` times the largest value."""
    assert got.shape == expected.shape
    width = tolerance * expected.abs().max().item() + 1e-14
    torch.testing.assert_close(
        got, expected, rtol=0, atol=width, msg=lambda text: f'{name}: {text}')


def assert_same_state(stock, ours):
    """Load each network's state dict into the other, strictly."""
    shapes = {key: value.shape for key, value in stock.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == shapes
    ours.load_state_dict(perturb(stock).state_dict(), strict=True)
    stock.load_state_dict(perturb(ours).state_dict(), strict=True)
    for key, value in ours.state_dict().items():
        assert torch.equal(value, stock.state_dict()[key])


def assert_same_losses(got, expected):
    """Compare losses by name and the gradient of their sum."""
    assert got[0].keys() == expected[0].keys()
    torch.testing.assert_close(got[0], expected[0], rtol=2e-6, atol=1e-6)
    assert_same(got[1], expected[1], 1e-5)


def losses_and_gradient(function, logits, labels):
    """Return a head's losses of logits, and the gradient of their sum."""
    leaf = logits.clone().requires_grad_()
    losses = function(leaf, samples(labels))
    total = sum(value for name, value in losses.items() if 'loss' in name)
    return losses, torch.autograd.grad(total, leaf)[0]


def samples(labels):
    """Return a data sample for each label map (H, W) or (1, H, W)."""
    return [SegDataSample(gt_sem_seg=PixelData(data=label.view(1, *label.shape[-2:])))
            for label in labels]
