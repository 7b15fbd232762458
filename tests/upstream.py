"""Run MMSegmentation's own tests of what this package replaces, on ours.

    python tests/upstream.py PATH_TO_MMSEGMENTATION [words for pytest ...]

The path is a source tree of MMSegmentation, such as its unpacked source archive;
not part of CI. Its tests import classes by name, so ours are put in the places
where they look. A test file that the tree lacks is named.
"""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import mmseg_encstdc  # noqa: E402

FILES = (
    'tests/test_models/test_backbones/test_stdc.py',
    'tests/test_models/test_heads/test_decode_head.py',
    'tests/test_models/test_heads/test_enc_head.py',
    'tests/test_models/test_heads/test_fcn_head.py',
    'tests/test_models/test_heads/test_stdc_head.py',
    'tests/test_models/test_losses/test_cross_entropy_loss.py',
    'tests/test_models/test_losses/test_dice_loss.py',
    'tests/test_sampler.py',
)
# Modules of MMSegmentation out of which its tests import what is replaced.
PLACES = ('mmseg.models', 'mmseg.models.backbones', 'mmseg.models.backbones.stdc',
          'mmseg.models.decode_heads', 'mmseg.structures',
          'mmseg.structures.sampler')


def put_ours_in_place() -> None:
    """Make ``from mmseg... import NAME`` give the class of this package."""
    for _, room, names in mmseg_encstdc.REPLACED:
        for name in names:
            for place in PLACES:
                module = sys.modules[place]
                if hasattr(module, name):
                    setattr(module, name, getattr(room, name))


def main() -> int:
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / 'tests').is_dir():
        print(f'error: {" ".join(sys.argv[1:2]) or "no path"} is no source tree of '
              'MMSegmentation with a folder tests; give one', file=sys.stderr)
        return 2
    tree = Path(sys.argv[1]).resolve()
    there = [file for file in FILES if (tree / file).is_file()]
    for file in FILES:
        if file not in there:
            print(f'not in this tree: {file}')
    if not there:
        print('error: none of the tests is there', file=sys.stderr)
        return 2
    put_ours_in_place()
    return pytest.main([
        *(str(tree / file) for file in there), '-c', '/dev/null', '-p',
        'no:cacheprovider', '-v', f'--rootdir={tree}', *sys.argv[2:]])


if __name__ == '__main__':
    sys.exit(main())
