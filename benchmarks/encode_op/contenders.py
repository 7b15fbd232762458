"""What is compared: implementations of one operator, on the same input."""
from typing import Callable, Dict, List, NamedTuple, Tuple

import torch
from common.backends import available, forced
from torch import Tensor, nn

from mmseg_encstdc.ops import encode  # first: makes mmseg importable

from mmseg.models.utils.encoding import Encoding  # isort: skip
from mmseg_encstdc.errors import InputError
from mmseg_encstdc.ops.backend import BACKENDS
from mmseg_encstdc.ops.encode import MAX_CODES

__all__ = [
    'PASSES', 'Inputs', 'Shape', 'check_agreement', 'contenders', 'make_inputs',
    'outcome', 'passes'
]

PASSES = ('forward', 'forward_backward')
LARGEST = 2**31 - 1  # of the numbers of a shape
OUTCOMES = ('encodings', 'gradient of x', 'gradient of the codewords',
            'gradient of scale')

# Accepted difference as a part of the largest value. Stock sums the gradient
# of x in the type of x, which alone costs some of its last bits.
TOLERANCE = {
    torch.float32: 1e-3,
    torch.float16: 1e-2,
    torch.bfloat16: 3e-2,
}


class Shape(NamedTuple):
    """Features (B, D, H, W) and K codewords."""
    batch: int
    channels: int
    height: int
    width: int
    codes: int

    @classmethod
    def parse(cls, text: str) -> 'Shape':
        """The shape written as BxDxHxWxK.

        Raises:
            InputError: when it is not written so, or a number is not accepted.
        """
        words = text.split('x')
        # More digits than LARGEST has are none that int() need read.
        if len(words) == 5 and all(
                word.isdecimal() and len(word) <= 10 for word in words):
            shape = cls(*map(int, words))
            if (min(shape) >= 1 and max(shape) <= LARGEST
                    and shape.codes <= MAX_CODES):
                return shape
        raise InputError(
            f'--shapes {text} is no shape; give BxDxHxWxK, whole numbers of at '
            f'least 1 and at most {LARGEST} with K at most {MAX_CODES}, such as '
            '2x512x64x64x32')

    def __str__(self) -> str:
        return 'x'.join(map(str, self))

    @property
    def count(self) -> int:
        """N, the feature vectors of a map."""
        return self.height * self.width

    @property
    def residuals(self) -> int:
        """B N K D, the size of the tensors that stock makes."""
        return self.batch * self.count * self.codes * self.channels

    @property
    def elements(self) -> int:
        """B N D, the size of x."""
        return self.batch * self.channels * self.count

    def bytes(self, dtype: torch.dtype) -> int:
        """Of x."""
        return self.elements * dtype.itemsize


class Inputs(NamedTuple):
    """Arguments of the operator, and the gradient that comes back to it."""
    features: List[Tensor]  # copies of x (B, D, H, W)
    codewords: nn.Parameter  # (K, D)
    scale: nn.Parameter  # (K, )
    gradient: Tensor  # (B, K, D)


def make_inputs(shape: Shape, device: torch.device, dtype: torch.dtype,
                copies: int = 1) -> Inputs:
    """The same random inputs in every run.

    Distances are about 1.25 D, so a scale of at most 4 / D spreads the
    assignments over the codewords, as in a trained network: no gradient
    vanishes in the comparison of the contenders.
    """
    random = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(*size, generator=random).to(device)

    batch, d, height, width, k = shape
    x = normal(batch, d, height, width).to(dtype)
    uniform = torch.rand(k, generator=random).to(device)
    return Inputs([x.clone().requires_grad_() for _ in range(copies)],
                  nn.Parameter(0.5 * normal(k, d)),
                  nn.Parameter(-4 / d * uniform), normal(batch, k, d))


def contenders(device: torch.device) -> Tuple[str, ...]:
    """Names of what can run on a device: stock, and backends of ``encode``."""
    return 'stock', *available('encode', device)


def implementation(name: str, inputs: Inputs) -> Callable[[Tensor], Tensor]:
    """What turns x (B, D, H, W) into encodings (B, K, D)."""
    if name in BACKENDS:
        return lambda x: encode(x, inputs.codewords, inputs.scale)
    codes, channels = inputs.codewords.shape
    stock = Encoding(channels, codes)
    stock.codewords, stock.scale = inputs.codewords, inputs.scale
    return stock


def passes(name: str, inputs: Inputs) -> Dict[str, Callable]:
    """Functions of x to measure, by the names in :data:`PASSES`.

    The forward pass alone is that of inference: nothing is kept for a
    backward pass. The other returns the gradients of x, codewords and scale.
    """
    run = implementation(name, inputs)

    def forward_backward(x: Tensor) -> Tuple[Tensor, ...]:
        return torch.autograd.grad(
            run(x), (x, inputs.codewords, inputs.scale), inputs.gradient)

    return dict(zip(PASSES, (torch.no_grad()(run), forward_backward)))


def outcome(name: str, inputs: Inputs) -> List[Tensor]:
    """What a contender computes, in the order of :data:`OUTCOMES`."""
    x = inputs.features[0]
    with forced(name):
        forward, forward_backward = passes(name, inputs).values()
        return [forward(x), *forward_backward(x)]


def check_agreement(name: str, values: List[Tensor], expected: List[Tensor],
                    where: str) -> None:
    """Compare the outcome of a contender with that of ``torch``.

    Raises:
        RuntimeError: naming the tensor and its difference.
    """
    tolerance = TOLERANCE[expected[1].dtype]  # of the gradient of x
    for what, value, other in zip(OUTCOMES, values, expected):
        gap = (value.float() - other.float()).abs().max()
        part = (gap / other.float().abs().max().clamp(min=1e-30)).item()
        if not part <= tolerance:  # NaN is no agreement
            raise RuntimeError(
                f'{name} and torch disagree at {where}: {what} differs by '
                f'{part:.1e} of its largest value; at most {tolerance:.0e} is '
                'accepted')
