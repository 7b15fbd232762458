"""What the tests share."""
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
warnings.filterwarnings('ignore', 'When align_corners=True')

import mmseg_encstdc  # noqa: E402, F401

# The same examples in every run: a failure is there for the next reader too.
settings.register_profile('repeatable', derandomize=True, deadline=None)
settings.load_profile('repeatable')
torch.set_num_threads(1)  # two threads compete where the tensors are tiny


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same numbers."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _mmseg_scope():
    """Types resolve as they do under a runner."""
    from mmengine.registry import init_default_scope
    init_default_scope('mmseg')


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def camvid() -> Path:
    """The real street scenes, where they are linked."""
    folder = ROOT / 'data' / 'camvid'
    if not folder.is_dir():
        pytest.skip('CamVid is not at data/camvid')
    return folder
