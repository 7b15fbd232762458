"""What the tests of the operators share."""
import pytest
from emulated_cross_entropy import CrossEntropy
from emulated_kernels import Kernels, compile_kernels


@pytest.fixture(scope='session')
def library(tmp_path_factory):
    """The CUDA kernels, compiled for this processor."""
    return compile_kernels(tmp_path_factory.mktemp('kernels'))


@pytest.fixture(scope='session')
def kernels(library):
    """Those of the Encoding operator."""
    return Kernels(library)


@pytest.fixture(scope='session')
def cross_entropy(library):
    """Those of the cross entropy of upsampled logits, and of the selection."""
    return CrossEntropy(library)
