"""Inputs, calls and comparisons of the operators for tests on a GPU."""
from importlib import import_module

import cross_entropy_cases
import operator_cases
import torch

from mmseg_encstdc.ops import backend

DEVICE = 'cuda'
TYPES = operator_cases.TYPES
IGNORE = cross_entropy_cases.IGNORE


def on_device(inputs):
    return [value.to(DEVICE) for value in inputs]


class Encode:
    """Test encode of x (B, D, N) or (B, D, H, W)."""
    name, leaves = 'encode', 3
    # B, D, N and K: EncNet's; one and nothing more; odd; the largest K.
    shapes = ((2, 512, 3600, 32), (1, 1, 1, 1), (3, 37, 45, 5), (2, 700, 70, 70),
              (1, 130, 300, 256))
    small, large = (2, 128, 64, 32), (2, 512, 97 * 97, 32)
    layouts = operator_cases.LAYOUTS

    @staticmethod
    def draw(shape, dtype, layout='contiguous'):
        """Return x, codewords, scale and the gradient of the encodings."""
        x, *rest = on_device(operator_cases.draw(*shape, dtype))
        if dtype == torch.float64:
            rest = [value.double() for value in rest]
        return Encode.layouts[layout](x), *rest

    @staticmethod
    def function(x, codewords, scale):
        return [torch.ops.mmseg_encstdc.encode(x, codewords, scale)]

    @staticmethod
    def computed(module, x, codewords, scale, grad):
        """Return encodings and gradients by a backend's own functions."""
        return [module.forward(x, codewords, scale),
                *module.backward(grad, x, codewords, scale)]

    @staticmethod
    def assert_formula(got, inputs):
        dtype = inputs[0].dtype
        # Tensor cores may truncate where they add.
        tolerance = {name: max(width, 2e-5) for name, width in
                     operator_cases.FORMULA[dtype].items()}
        operator_cases.assert_agree(
            got, operator_cases.formula(*inputs), tolerance, inputs)


class CrossEntropy:
    """Test upsampled_cross_entropy of logits (B, C, h, w)."""
    name, leaves = 'upsampled_cross_entropy', 1
    # B, C, h, w, H and W.
    shapes = tuple(cross_entropy_cases.SHAPES.values())
    small, large = (2, 19, 9, 17, 72, 136), (2, 150, 64, 64, 512, 512)
    layouts = {
        'contiguous': lambda logits: logits,
        'channels_last': lambda logits: logits.contiguous(
            memory_format=torch.channels_last),
        'sliced': lambda logits: logits.repeat_interleave(2, dim=3)[..., ::2],
    }

    @staticmethod
    def draw(shape, dtype, layout='contiguous'):
        """Return logits, labels and the gradient of the losses."""
        logits, *rest = on_device(cross_entropy_cases.draw(*shape, dtype))
        return CrossEntropy.layouts[layout](logits), *rest

    @staticmethod
    def function(logits, labels):
        return torch.ops.mmseg_encstdc.upsampled_cross_entropy(
            logits, labels, False, IGNORE)

    @staticmethod
    def computed(module, logits, labels, grad):
        """Return losses, hits, logsumexp and the gradient of the logits."""
        losses, hits, logsumexp = module.forward(logits, labels, False, IGNORE)
        return [losses, hits, logsumexp, module.backward(
            grad, logits, labels, logsumexp, False, IGNORE)]

    @staticmethod
    def assert_formula(got, inputs):
        # The exponential of a GPU is an approximation.
        cross_entropy_cases.assert_agree(
            [value.cpu() for value in got], [value.cpu() for value in inputs], False,
            values=4e-6)


OPERATORS = {each.name: each for each in (Encode, CrossEntropy)}
BACKENDS = [(name, other) for name, operator in backend.OPERATORS.items()
            for other in operator.modules]


def unavailable(name, chosen):
    """Return why a backend of an operator cannot run here, or None."""
    return backend.unavailable(
        backend.OPERATORS[name], chosen, torch.device(DEVICE))


def module_of(name, chosen):
    """Return the module of a backend of an operator."""
    return import_module(backend.OPERATORS[name].modules[chosen])


def through_autograd(operator, function, inputs):
    """Return the outputs of a call of ``function``, and the gradients of those
    inputs that have one."""
    *arguments, grad = inputs
    leaves = [value.detach().requires_grad_()
              for value in arguments[:operator.leaves]]
    out = function(*leaves, *arguments[operator.leaves:])
    gradients = torch.autograd.grad(out[0], leaves, grad)
    return [*(value.detach() for value in out), *gradients]
