"""What a scan is given and gives back, and how it is cut into programs; nothing here needs Triton.

b batch, l steps, h heads of values, g groups (g / h routes a head), e channels of a group, n states,
r rank of the step size.
"""

from typing import NamedTuple

from torch import Tensor

# Channels of a block: with 4 lanes for the states, a warp.
BLOCK_CHANNELS = 8
# States of a tile: with 32 lanes, 16 numbers each.
_TILE_STATES = 128
_MAX_TILE_STEPS = 8
# Tiles from one saved state to the next.
_SPAN_TILES = 2
# As many programs of one warp as keep a large GPU busy; fewer are made more by cutting l into chunks.
_PROGRAMS = 1400
_MIN_CHUNK_STEPS = 32


class Inputs(NamedTuple):
    """A scan's tensors with time before groups and channels, as the kernels read them.

    Attributes:
        u: (b, l, h, e).
        delta: (b, l, g, e); None if `step` and `weight` give it.
        step: (b, l, g, r).
        weight: (g, e, r).
        A: (g, e, n).
        B, C: (b, l, g, n).
        D, bias: (g, e) or None.
        z: (b, l, g, e) or None.
        order: Step -> cell, (g, l), integers; None if time is as it lies in memory.
        softplus: Whether the step size goes through softplus.
    """

    u: Tensor
    delta: Tensor | None
    step: Tensor | None
    weight: Tensor | None
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    bias: Tensor | None
    order: Tensor | None
    softplus: bool


class Gradients(NamedTuple):
    """Gradients of `Inputs`; `projections` are those of B and C, or of step, B and C in one (b, l, g, r + 2n)."""

    u: Tensor
    delta: Tensor | None
    projections: tuple[Tensor, ...]
    weight: Tensor | None
    A: Tensor
    D: Tensor | None
    z: Tensor | None
    bias: Tensor | None


class Plan(NamedTuple):
    """How a scan is cut: tiles (T, N, E), steps of a chunk and of a span, parts of a group's channels."""

    tile: dict[str, int]
    span: int
    chunk: int
    num_chunks: int
    parts: int


def num_saved(length: int, n: int) -> int:
    """Spans of l steps, each of which keeps one state for backward."""
    return -(-length // (_SPAN_TILES * _tile(n)["T"]))


def _tile(n: int) -> dict[str, int]:
    # Fewer than 4 states would leave lanes for the steps.
    states = max(4, 1 << (n - 1).bit_length())
    return {"T": min(_MAX_TILE_STEPS, _TILE_STATES // states), "N": states, "E": BLOCK_CHANNELS}


def make_plan(inputs: Inputs, blocks_per_program: int) -> Plan:
    b, length = inputs.u.shape[:2]
    g, e, n = inputs.A.shape
    tile = _tile(n)
    span = _SPAN_TILES * tile["T"]
    parts = -(-e // (BLOCK_CHANNELS * blocks_per_program))
    chunks = -(-_PROGRAMS // (b * g * parts))
    chunk = max(_MIN_CHUNK_STEPS, -(-length // chunks))
    chunk = -(-chunk // span) * span
    return Plan(tile, span, chunk, -(-length // chunk), parts)
