"""What a scan is given and gives back, and how it is cut into programs; nothing here needs Triton.

b batch, l steps, h heads of values, k routes of a head, g = h * k groups, e channels of a group, n states.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Channels of a block: with 4 lanes for the states, a warp.
BLOCK_CHANNELS = 8
# States of a tile, (t, n): forward 32 lanes hold 32 numbers of a block each, backward half of that.
_FORWARD_TILE_STATES = 128
_BACKWARD_TILE_STATES = 64
_MAX_FORWARD_STEPS = 8
_MAX_BACKWARD_STEPS = 4
# As many programs of one warp as keep a large GPU busy; fewer are made more by cutting l into chunks.
_FORWARD_PROGRAMS = 1400
_BACKWARD_PROGRAMS = 3000
_MIN_CHUNK_STEPS = 64
# Backward, where chunks of so many steps give no more programs than this and leave most of a GPU idle, they may be a
# quarter of that: all still run at once, and wait less. But a gradient is carried through one chunk after the other,
# so there are not more of them than that.
_FEW_PROGRAMS = 256
_MIN_SHORT_CHUNK_STEPS = 16
_MAX_SHORT_CHUNKS = 32
# Blocks that one program walks backward, with their states in registers: in a small group, whose sums over channels
# are complete or come in few parts, and in a large one. Three spill a little. In bfloat16 they won in groups of 6 and
# of 12 blocks, and lost in groups of 24 and of 48; in float32 they were timed in groups of 3 alone.
_BLOCKS_IN_SMALL_GROUP, _BLOCKS_IN_LARGE_GROUP = 3, 2
_MOST_BLOCKS_OF_SMALL_GROUP, _MOST_BLOCKS_IN_BFLOAT16 = 3, 12
# Programs backward that a multiprocessor holds, by their registers. Where they fill a GPU about evenly without chunks,
# these would only cost their pass.
_PROGRAMS_AT_ONCE = 8
_FULL = 0.9
# Multiprocessors where there is no GPU to ask: those of an H100.
_MULTIPROCESSORS = 132


class Inputs(NamedTuple):
    """A scan's tensors with time before groups and channels, as the kernels read them.

    Attributes:
        u: (b, l, h, e).
        delta: (b, l, h, k, e).
        A: (g, n, e).
        B, C: (b, l, h, k, n).
        D, bias: (g, e) or None.
        z: (b, l, g, e) or None.
        order: Step -> cell, (g, l), integers; None if time is as it lies in memory.
        softplus: Whether the step size goes through softplus.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    bias: Tensor | None
    order: Tensor | None
    softplus: bool


class Gradients(NamedTuple):
    """Gradients of `Inputs` but delta, B and C.

    Attributes:
        u: (b, l, g, e), one for each route.
        z: (b, l, g, e) or None.
        sums: Those of A (g, n, e), and of D and bias (g, e) where there are any, one behind the other; float32.
    """

    u: Tensor
    z: Tensor | None
    sums: Tensor


class Plan(NamedTuple):
    """How a scan is cut: tiles (T, N, E), steps of a chunk and of a span, parts of a group's channels."""

    tile: dict[str, int]
    span: int
    chunk: int
    num_chunks: int
    parts: int


def plan_forward(inputs: Inputs) -> Plan:
    parts = -(-inputs.A.shape[2] // BLOCK_CHANNELS)
    return _plan(inputs, parts, _FORWARD_TILE_STATES, _MAX_FORWARD_STEPS, _FORWARD_PROGRAMS, _MIN_CHUNK_STEPS)


def plan_backward(inputs: Inputs) -> Plan:
    blocks = -(-inputs.A.shape[2] // BLOCK_CHANNELS)
    most = _MOST_BLOCKS_IN_BFLOAT16 if inputs.u.dtype == torch.bfloat16 else _MOST_BLOCKS_OF_SMALL_GROUP
    parts = -(-blocks // (_BLOCKS_IN_SMALL_GROUP if blocks <= most else _BLOCKS_IN_LARGE_GROUP))
    b, length = inputs.u.shape[:2]
    programs, min_steps = b * inputs.A.shape[0] * parts, _MIN_CHUNK_STEPS
    if _fills_gpu(programs, inputs.u.device):
        min_steps = length
    elif programs * -(-length // min_steps) <= _FEW_PROGRAMS:
        min_steps = min(min_steps, max(_MIN_SHORT_CHUNK_STEPS, -(-length // _MAX_SHORT_CHUNKS)))
    return _plan(inputs, parts, _BACKWARD_TILE_STATES, _MAX_BACKWARD_STEPS, _BACKWARD_PROGRAMS, min_steps)


def _fills_gpu(programs: int, device: torch.device) -> bool:
    """Whether so many equal programs leave little of a GPU idle when the last of them run."""
    multiprocessors = _MULTIPROCESSORS
    if device.type == "cuda":
        multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    at_once = _PROGRAMS_AT_ONCE * multiprocessors
    return programs >= _FULL * at_once * -(-programs // at_once)


def num_saved(length: int, n: int) -> int:
    """Spans of l steps, each of which keeps one state for backward."""
    return -(-length // _span(n))


def partial_dtype(u: Tensor) -> torch.dtype:
    """Of what is kept between kernels, states and parts of sums: bfloat16 like the values, as its range is float32's,
    else that; in registers they are float32 always."""
    return torch.bfloat16 if u.dtype == torch.bfloat16 else torch.float32


def _span(n: int) -> int:
    return 2 * _tile(n, _BACKWARD_TILE_STATES, _MAX_BACKWARD_STEPS)["T"]


def _tile(n: int, tile_states: int, max_steps: int) -> dict[str, int]:
    # Fewer than 4 states would leave lanes for the steps.
    states = max(4, 1 << (n - 1).bit_length())
    return {"T": min(max_steps, tile_states // states), "N": states, "E": BLOCK_CHANNELS}


def _plan(inputs: Inputs, parts: int, tile_states: int, max_steps: int, programs: int, min_steps: int) -> Plan:
    b, length = inputs.u.shape[:2]
    g, n, _ = inputs.A.shape
    span = _span(n)
    chunks = -(-programs // (b * g * parts))
    chunk = max(min_steps, -(-length // chunks))
    chunk = -(-chunk // span) * span
    return Plan(_tile(n, tile_states, max_steps), span, chunk, -(-length // chunk), parts)
