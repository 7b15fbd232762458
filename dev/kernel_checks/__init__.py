"""Call the compilers for dev/check_kernels.py: ``cuda`` nvcc, ``triton`` Triton."""
