"""Computing: CUDA graphs, several processes, numerics, stopping."""
