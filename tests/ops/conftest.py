"""What the tests of the operators share."""
import pytest
from emulated_kernels import Kernels, compile_kernels


@pytest.fixture(scope='session')
def kernels(tmp_path_factory):
    """The CUDA kernels of the Encoding operator, compiled for this processor."""
    return Kernels(compile_kernels(tmp_path_factory.mktemp('kernels')))
