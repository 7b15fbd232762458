"""The compilers of tools/check_kernels.py: ``cuda`` is nvcc, ``triton`` Triton."""
