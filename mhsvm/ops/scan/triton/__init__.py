"""Scans in Triton for GPUs, forward and backward.

`forward_kernels` and `backward_kernels` hold the kernels, `plan` the split into programs, `triton_launch` memory and
grids, `triton_scan` the operators of torch with their gradients.
"""
