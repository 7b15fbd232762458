"""The compilers of dev/check_kernels.py: ``cuda`` is nvcc, ``triton`` Triton."""
