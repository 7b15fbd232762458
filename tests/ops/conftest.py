"""Fixtures of the operators' tests."""
import pytest
from emulated_kernels import Kernels, compile_kernels


@pytest.fixture(scope='session')
def kernels(tmp_path_factory):
    """Compile the CUDA kernels of the Encoding operator for this processor."""
    return Kernels(compile_kernels(tmp_path_factory.mktemp('kernels')))
