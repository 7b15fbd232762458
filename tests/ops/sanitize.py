"""Run every kernel on small inputs on a GPU, under compute-sanitizer.

    compute-sanitizer --tool memcheck --error-exitcode 1 \\
        python tests/ops/sanitize.py
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gpu_cases import (  # noqa: E402
    BACKENDS,
    OPERATORS,
    TYPES,
    module_of,
    unavailable,
)

SHAPES = {
    # B, D, N and K: full blocks; odd sizes; several blocks of each.
    'encode': ((2, 128, 64, 32), (1, 37, 45, 5), (1, 512, 520, 32), (1, 700, 70, 70)),
    # B, C, h, w, H and W: full blocks; odd sizes; several blocks of classes; labels
    # smaller than the logits.
    'upsampled_cross_entropy': ((2, 19, 5, 9, 40, 72), (1, 4, 7, 40, 50, 290),
                                (1, 171, 2, 3, 16, 24), (1, 5, 9, 11, 4, 3)),
}
LAYOUTS = ('contiguous', 'channels_last', 'shifted by one', 'sliced')


def count_agreeing(name: str, chosen: str) -> int:
    """Compare all cases of a backend with the formula; return their number."""
    operator, count = OPERATORS[name], 0
    for dtype in TYPES:
        for shape in SHAPES[name]:
            for layout in set(LAYOUTS) & set(operator.layouts):
                inputs = operator.draw(shape, dtype, layout)
                operator.assert_formula(
                    operator.computed(module_of(name, chosen), *inputs), inputs)
                count += 1
    return count


def main() -> None:
    ran = 0
    for name, chosen in BACKENDS:
        if chosen == 'torch':
            continue
        reason = unavailable(name, chosen)
        if reason:
            print(f'skipped: {name}, {chosen}: {reason}')
            continue
        count = count_agreeing(name, chosen)
        print(f'{name}, {chosen}: {count} cases agree', flush=True)
        ran += 1
    if not ran:
        sys.exit('error: no backend has kernels that can run here')


if __name__ == '__main__':
    main()
