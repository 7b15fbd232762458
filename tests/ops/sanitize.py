"""A few small runs of the kernels on a GPU, for compute-sanitizer to watch.

    compute-sanitizer --tool memcheck --error-exitcode 1 \\
        python tests/ops/sanitize.py
"""
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

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


def encode(kernels) -> int:
    """How many cases of the Encoding kernels agree."""
    for dtype in TYPES:
        for shape in SHAPES:
            for layout in KEPT:
                x, *rest = draw(*shape, dtype)
                x = LAYOUTS[layout](x.cuda())
                codewords, scale, grad = (value.cuda() for value in rest)
                got = [kernels.encode_cuda(x, codewords, scale),
                       *kernels.encode_cuda_backward(grad, x, codewords, scale)]
                inputs = (x.cpu(), *rest)
                assert_agree([value.cpu() for value in got], formula(*inputs),
                             FORMULA[dtype], inputs)
    return len(TYPES) * len(SHAPES) * len(KEPT)


def main() -> None:
    assert backend.load_extension(), 'the kernels are not built'
    print(f'{encode(torch.ops.mmseg_encstdc)} cases agree')


if __name__ == '__main__':
    main()
