"""Scans in Triton for GPUs, forward and backward, in four layers.

Kernels know pointers (`tiles`, `forward_kernels`, `backward_kernels`), `launch` shapes and grids, `autograd`
what backward needs, and `mhsvm.ops` its users.
"""
