"""What the tests of the operator share."""
import pytest
from emulated_kernels import compile_kernels


@pytest.fixture(scope='session')
def kernels(tmp_path_factory):
    """The CUDA kernels, compiled for this processor."""
    return compile_kernels(tmp_path_factory.mktemp('kernels'))
