"""Compiling Triton kernels before they are launched."""
