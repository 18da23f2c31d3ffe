"""The split of a scan into programs; nothing here needs Triton.

Letters are those of `mhsvm.ops`; g = m * k in a route scan.
"""

from typing import NamedTuple

import torch

from mhsvm.ops.scan.inputs import Inputs

# Channels of a block: with 4 lanes for the states, a warp.
BLOCK_CHANNELS = 8
# States of a tile, (t, n): forward 32 lanes hold 32 numbers of a block each, backward half of that.
_FORWARD_TILE_STATES = 128
_BACKWARD_TILE_STATES = 64
_MAX_FORWARD_STEPS = 8
_MAX_BACKWARD_STEPS = 4
# As many programs of one warp as keep a large GPU busy; fewer become more when l is split into chunks.
_FORWARD_PROGRAMS = 1400
_BACKWARD_PROGRAMS = 3000
_MIN_CHUNK_STEPS = 64
# If the usual chunks give at most this many programs backward, most of a GPU is idle. Then chunks may be four times as
# short: all programs still run at once, and each takes less time. A gradient is carried through the chunks one after
# the other, so their number is limited too.
_FEW_PROGRAMS = 256
_MIN_SHORT_CHUNK_STEPS = 16
_MAX_SHORT_CHUNKS = 32
# Blocks of one backward program, whose states are in registers. In a small group more blocks leave fewer splits to sum;
# three spill a few registers. In bfloat16 three are faster in groups of 6 and 12 blocks, and slower in groups of 24 and
# 48. In float32 only groups of 3 were timed.
_BLOCKS_IN_SMALL_GROUP, _BLOCKS_IN_LARGE_GROUP = 3, 2
_MOST_BLOCKS_OF_SMALL_GROUP, _MOST_BLOCKS_IN_BFLOAT16 = 3, 12
# Backward programs that a multiprocessor holds, by their registers. If they fill a GPU about evenly without chunks,
# chunks would only add the cost of their pass.
_PROGRAMS_AT_ONCE = 8
_FULL = 0.9
# Multiprocessors if there is no GPU: those of an H100.
_MULTIPROCESSORS = 132


class Plan(NamedTuple):
    """Split of a scan: tiles (T, N, E), steps between saved states, steps of a chunk, splits of a group's channels."""

    tile: dict[str, int]
    save_steps: int
    chunk: int
    num_chunks: int
    splits: int


def plan_forward(inputs: Inputs) -> Plan:
    splits = -(-inputs.A.shape[2] // BLOCK_CHANNELS)
    return _plan(inputs, splits, _FORWARD_TILE_STATES, _MAX_FORWARD_STEPS, _FORWARD_PROGRAMS, _MIN_CHUNK_STEPS)


def plan_backward(inputs: Inputs) -> Plan:
    blocks = -(-inputs.A.shape[2] // BLOCK_CHANNELS)
    most = _MOST_BLOCKS_IN_BFLOAT16 if inputs.u.dtype == torch.bfloat16 else _MOST_BLOCKS_OF_SMALL_GROUP
    splits = -(-blocks // (_BLOCKS_IN_SMALL_GROUP if blocks <= most else _BLOCKS_IN_LARGE_GROUP))
    b, length = inputs.u.shape[:2]
    programs, min_steps = b * inputs.A.shape[0] * splits, _MIN_CHUNK_STEPS
    if _fills_gpu(programs, inputs.u.device):
        min_steps = length
    elif programs * -(-length // min_steps) <= _FEW_PROGRAMS:
        min_steps = min(min_steps, max(_MIN_SHORT_CHUNK_STEPS, -(-length // _MAX_SHORT_CHUNKS)))
    return _plan(inputs, splits, _BACKWARD_TILE_STATES, _MAX_BACKWARD_STEPS, _BACKWARD_PROGRAMS, min_steps)


def _fills_gpu(programs: int, device: torch.device) -> bool:
    """Whether this many equal programs leave only a small part of a GPU idle while the last of them run."""
    multiprocessors = _MULTIPROCESSORS
    if device.type == "cuda":
        multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    at_once = _PROGRAMS_AT_ONCE * multiprocessors
    return programs >= _FULL * at_once * -(-programs // at_once)


def num_saved(length: int, n: int) -> int:
    """Number of states that a scan of l steps saves for its backward pass."""
    return -(-length // _save_steps(n))


def _save_steps(n: int) -> int:
    return 2 * _tile(n, _BACKWARD_TILE_STATES, _MAX_BACKWARD_STEPS)["T"]


def _tile(n: int, tile_states: int, max_steps: int) -> dict[str, int]:
    # With fewer than 4 states, lanes would be left for the steps.
    states = max(4, 1 << (n - 1).bit_length())
    return {"T": min(max_steps, tile_states // states), "N": states, "E": BLOCK_CHANNELS}


def _plan(inputs: Inputs, splits: int, tile_states: int, max_steps: int, programs: int, min_steps: int) -> Plan:
    b, length = inputs.u.shape[:2]
    g, n, _ = inputs.A.shape
    save_steps = _save_steps(n)
    chunks = -(-programs // (b * g * splits))
    chunk = max(min_steps, -(-length // chunks))
    chunk = -(-chunk // save_steps) * save_steps
    return Plan(_tile(n, tile_states, max_steps), save_steps, chunk, -(-length // chunk), splits)
