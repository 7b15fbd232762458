"""A few small runs of the kernels on a GPU, for compute-sanitizer to watch.

    compute-sanitizer --tool memcheck --error-exitcode 1 \\
        python tests/ops/sanitize.py
"""
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cross_entropy_cases  # noqa: E402
from operator_cases import (  # noqa: E402
    FORMULA,
    LAYOUTS,
    TYPES,
    assert_agree,
    draw,
    formula,
)

from mmseg_encstdc.ops import backend  # noqa: E402

# Whole; odd sizes; a cluster of blocks; groups and chunks.
SHAPES = ((2, 128, 64, 32), (1, 37, 45, 5), (1, 512, 520, 32), (1, 700, 70, 70))
KEPT = ('contiguous', 'channels_last', 'shifted by one')


# A whole tile; uneven steps and several tiles; several chunks of channels.
UPSAMPLED = ((2, 19, 5, 9, 40, 72), (1, 4, 7, 40, 50, 290), (1, 171, 2, 3, 16, 24))


def encode(kernels) -> int:
    """How many cases of the Encoding kernels agree."""
    for dtype in TYPES:
        for shape in SHAPES:
            for layout in KEPT:
                x, *rest = draw(*shape, dtype)
                x = LAYOUTS[layout](x.cuda())
                codewords, scale, grad = (value.cuda() for value in rest)
                got = [kernels.encode(x, codewords, scale),
                       *kernels.encode_backward(grad, x, codewords, scale)]
                inputs = (x.cpu(), *rest)
                assert_agree([value.cpu() for value in got], formula(*inputs),
                             FORMULA[dtype], inputs)
    return len(TYPES) * len(SHAPES) * len(KEPT)


def cross_entropy(kernels) -> int:
    """How many cases of the cross entropy of upsampled logits agree."""
    for dtype in TYPES:
        for shape in UPSAMPLED:
            # Near maxima, and so far apart that rows are redone.
            for width in (3.0, 1e3):
                inputs = cross_entropy_cases.draw(*shape, dtype, width=width)
                logits, labels, grad = (value.cuda() for value in inputs)
                rest = (False, cross_entropy_cases.IGNORE)
                got = kernels.cross_entropy(logits, labels, *rest)
                slope = kernels.cross_entropy_backward(
                    grad, logits, labels, got[2], *rest)
                cross_entropy_cases.assert_agree(
                    [value.cpu() for value in (*got, slope)], inputs, False,
                    values=4e-6, gradient=max(
                        cross_entropy_cases.GRADIENT[dtype], 3e-7 * width))
    return len(TYPES) * len(UPSAMPLED) * 2


def kth_largest(kernels) -> int:
    """How many selections agree."""
    values = torch.randn(20_001).clamp(min=0)
    for k in (1, 7000, 20_001):
        right = values.kthvalue(values.numel() - k + 1).values
        assert kernels.kth_largest(values.cuda(), k).item() == right
    return 3


def main() -> None:
    assert backend.load_extension(), 'the kernels are not built'
    kernels = torch.ops.mmseg_encstdc_cuda
    cases = sum(each(kernels) for each in (encode, cross_entropy, kth_largest))
    print(f'{cases} cases agree')


if __name__ == '__main__':
    main()
