"""Inputs, expected outputs and tolerances of the upsampled cross entropy."""
import numpy as np
import torch
import torch.nn.functional as F

IGNORE = 255

# Tolerances of the kernels: largest error divided by the largest value, against the
# formula in float64 on the same logits. The gradient is in the type of the logits.
VALUES = 1e-6
GRADIENT = {torch.float32: 1e-5, torch.float16: 6e-4, torch.bfloat16: 5e-3}

# Batch, channels, rows and columns of logits, then of labels.
SHAPES = {
    'eight times': (2, 19, 9, 17, 72, 136),
    'eight times and one': (1, 7, 9, 9, 65, 65),
    'sixteen times': (1, 5, 3, 4, 48, 64),
    'four times': (1, 6, 5, 20, 20, 80),
    'odd': (2, 4, 13, 11, 100, 95),
    'several tiles': (1, 3, 4, 37, 32, 290),
    'the same size': (1, 4, 6, 5, 6, 5),
    'the same size, many columns': (1, 3, 2, 140, 2, 140),
    'a row': (1, 3, 1, 6, 1, 41),
    'a row to many': (2, 3, 1, 5, 37, 40),
    'one logit': (1, 3, 1, 1, 20, 130),
    'to one': (1, 4, 1, 1, 1, 1),
    'many classes': (1, 1003, 3, 3, 24, 24),
    'many classes in chunks': (1, 171, 2, 19, 16, 150),
}


def draw(batch, channels, rows, columns, label_rows, label_columns,
         dtype=torch.float32, seed=0, ignored=0.1, width=3.0):
    """Draw logits (B, C, h, w), labels (B, H, W) and a gradient (B, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    size = (batch, label_rows, label_columns)
    logits = width * torch.randn(batch, channels, rows, columns, generator=generator)
    labels = torch.randint(channels, size, generator=generator)
    labels[torch.rand(size, generator=generator) < ignored] = IGNORE
    return logits.to(dtype), labels, torch.randn(size, generator=generator)


def weights(inputs, outputs, align_corners):
    """Return the weights of an axis (outputs, inputs), from float32 coordinates as
    F.interpolate has them."""
    places = np.arange(outputs, dtype=np.float64)
    if align_corners:
        scale = np.float32(inputs - 1) / np.float32(max(outputs - 1, 1))
        source = np.float64(scale) * places
    else:
        scale = np.float32(inputs) / np.float32(outputs)
        source = np.float64(scale) * (places + 0.5) - 0.5
    source = np.maximum(source.astype(np.float32), 0).astype(np.float64)
    before = np.minimum(source.astype(int), inputs - 1)
    after = np.minimum(before + 1, inputs - 1)
    out = np.zeros((outputs, inputs))
    np.add.at(out, (np.arange(outputs), before), 1 - (source - before))
    np.add.at(out, (np.arange(outputs), after), source - before)
    return torch.from_numpy(out)


def upsampled(logits, size, align_corners):
    """Upsample logits in float64 to (B, C, H, W)."""
    rows, columns = (weights(inputs, outputs, align_corners)
                     for inputs, outputs in zip(logits.shape[2:], size))
    return torch.einsum('yi,bcij,xj->bcyx', rows, logits.double(), columns)


def formula(logits, labels, grad, align_corners, upsample=upsampled):
    """Return losses, logsumexp, gradient and upsampled logits, in float64."""
    leaf = logits.detach().double().requires_grad_()
    scores = upsample(leaf, labels.shape[1:], align_corners)
    losses = F.cross_entropy(scores, labels.long(), ignore_index=IGNORE,
                             reduction='none')
    gradient, = torch.autograd.grad(losses, leaf, grad.double())
    scores = scores.detach()
    return losses.detach(), scores.logsumexp(1), gradient, scores


def error(got, expected):
    """Return the largest error over the largest value."""
    largest = expected.abs().max().item()
    difference = (got.double() - expected).abs().max().item()
    return difference / largest if largest else difference


def assert_hits(hits, labels, scores, near=1e-5):
    """Assert that hits are the pixels whose label has the largest score.

    Scores closer than ``near`` may be either.
    """
    valid = labels != IGNORE
    own = scores.gather(1, labels.long().clamp(0, scores.size(1) - 1)[:, None])[:, 0]
    lead = own - scores.amax(1)
    width = near * scores.abs().amax(1).clamp(min=1)
    assert not hits[~valid].any()
    assert hits[valid & (lead == 0)].all()
    assert not hits[valid & (lead < -width)].any()


def assert_agree(got, inputs, align_corners, upsample=upsampled, values=VALUES,
                 gradient=None):
    """Compare losses, hits, logsumexp and gradient with the formula."""
    logits, labels, grad = inputs
    losses, logsumexp, exact_gradient, scores = formula(
        *inputs, align_corners, upsample)
    size = max(1, scores.abs().max().item())  # what is rounded
    assert (got[0] - losses).abs().max() <= values * size
    assert (got[2] - logsumexp).abs().max() <= values * size
    assert (got[0] >= 0).all()
    assert_hits(got[1], labels, scores)
    assert got[3].dtype == logits.dtype
    assert error(got[3], exact_gradient) <= (gradient or GRADIENT[logits.dtype])
