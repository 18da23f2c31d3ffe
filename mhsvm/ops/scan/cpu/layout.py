"""Split of a scan into units, tiles and blocks. It does not import numba, so shapes are known without compiling."""

# Channels of a vector: one channel a lane. Processors with shorter vectors use several.
LANES = 16
# Vectors of channels in a unit of work, which share the loads of B and C.
BLOCKS = 2
SPLIT = BLOCKS * LANES
# Steps between two states that the forward pass saves for the backward pass.
TILE = 64
# Elements of a plane in a unit of work of the statistics over routes, whole vectors.
SLICE = 256 * LANES


def num_splits(channels: int) -> int:
    return -(-channels // SPLIT)


def num_tiles(length: int) -> int:
    return -(-length // TILE)


def num_slices(size: int) -> int:
    return -(-size // SLICE)
