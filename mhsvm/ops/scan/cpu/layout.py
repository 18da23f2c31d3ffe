"""How the kernels cut a scan up. Free of numba, so that shapes are known before anything is compiled."""

# Channels of a vector: one channel a lane. Shorter vector units take it in several pieces.
LANES = 16
# Vectors of channels in a unit of work, which share what is read of B and C.
BLOCKS = 2
PART = BLOCKS * LANES
# Steps between two states that the forward pass keeps for the backward pass.
TILE = 64
# Elements of a plane in a unit of work of the statistics over routes, whole vectors.
SLICE = 256 * LANES


def num_parts(channels: int) -> int:
    return -(-channels // PART)


def num_tiles(length: int) -> int:
    return -(-length // TILE)


def num_slices(size: int) -> int:
    return -(-size // SLICE)
