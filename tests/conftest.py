"""Fixtures and settings of all tests."""
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

# Draw the same examples in every run, so that a failure is repeatable.
settings.register_profile('repeatable', derandomize=True, deadline=None)
settings.load_profile('repeatable')
torch.set_num_threads(1)  # two threads compete where the tensors are tiny


@pytest.fixture(autouse=True)
def _seeded():
    """Seed the generators before each test."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _mmseg_scope():
    """Set the default scope, as a runner does."""
    from mmengine.registry import init_default_scope
    init_default_scope('mmseg')


@pytest.fixture
def root() -> Path:
    """Return the root of the repository."""
    return ROOT


@pytest.fixture
def camvid() -> Path:
    """Return the folder of CamVid, or skip the test if it is missing."""
    folder = ROOT / 'data' / 'camvid'
    if not folder.is_dir():
        pytest.skip('CamVid is not at data/camvid')
    return folder
