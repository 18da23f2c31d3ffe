"""Scans in CUDA C++ for NVIDIA GPUs, forward and backward.

`scan.cuh` has the legend of the kernels, `forward.cu`, `chunk.cu`, `backward.cu` and `sums.cu`; `cuda_plan` chooses the
variant of a kernel, `parameters` are the kernels' arguments, and `cuda_launch` has memory and grids.
"""
