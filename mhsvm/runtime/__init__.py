"""Execution: CUDA graphs, several processes, numerics, stopping, timing."""
