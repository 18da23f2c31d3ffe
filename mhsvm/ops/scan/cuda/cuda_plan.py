"""The variants of the scan kernels, and the split of a scan into warps and chunks. Letters are those of `mhsvm.ops`."""

import functools
from pathlib import Path
from typing import NamedTuple

import torch

from mhsvm.ops.cuda.cubins import Variant, the_variant

TILE = 8
_FOLDER = Path(__file__).parent
_NAMES = {torch.float32: "float", torch.bfloat16: "bf16", torch.float16: "f16"}
# Warps that keep a large GPU busy; fewer become more when l is split into chunks, of at least so many steps.
_FORWARD_WARPS = _BACKWARD_WARPS = 1000
_MIN_CHUNK_STEPS = 64
# Up to so many warps of 8 channels each, before l is split, warps are as small as possible.
_SMALL_WARPS = 528
# If the usual chunks give at most this many warps, most of a GPU is idle, and chunks may be shorter.
_FEW_WARPS = 1100
_MIN_SHORT_CHUNK_STEPS = 32
# The state that enters a chunk is computed from all chunks before it.
_MAX_CHUNKS = 64


class Shape(NamedTuple):
    """Sizes of a scan."""

    b: int
    length: int
    g: int
    e: int
    n: int


class Layout(NamedTuple):
    """Channels of a block, and its resources.

    Attributes:
        channels: Channels of a lane; a warp has 8 times as many.
        warps: Warps of a block.
        min_blocks: Blocks that a multiprocessor should hold; limits the registers.
        stages: Tiles in shared memory.
        buffers: Buffers for sums over channels, backward; with two, sums of half a tile overlap with the other half.
    """

    channels: int
    warps: int
    min_blocks: int
    stages: int
    buffers: int = 1

    @property
    def block_channels(self) -> int:
        return 8 * self.channels * self.warps


class Types(NamedTuple):
    """Types of u, of delta, B and C, of y, of z, of saved states, and of gradients of B and C and of u."""

    u: torch.dtype
    x: torch.dtype
    y: torch.dtype
    z: torch.dtype
    saved: torch.dtype
    bc_grad: torch.dtype
    u_grad: torch.dtype


class Alignments(NamedTuple):
    """Bytes by which every row of u, delta, B and C, y or its gradient, and z is aligned: 16, 8, 4 or 2."""

    u: int
    delta: int
    bc: int
    y: int
    z: int


class Options(NamedTuple):
    """Inputs that are given, and results that are computed.

    `vector_bc`: whether rows of the gradients of B and C take four numbers at once.
    """

    softplus: bool
    ordered: bool
    gate: bool
    save: bool = False
    reverse: bool = False
    vector_bc: bool = True


def state_blocks(n: int) -> int:
    """Blocks of 16 states that a lane has a part of: 1, 2 or 4."""
    return 1 if n <= 16 else 2 if n <= 32 else 4


def forward_layout(shape: Shape, *, gate: bool, save: bool, two_bytes: bool) -> Layout:
    """The fastest of those timed on an H200."""
    if state_blocks(shape.n) > 1:
        return Layout(1, 1, 1, 4)
    if gate:
        return Layout(1, 1, 12, 4)
    if _is_small(shape) or shape.e % 16:
        # without states to keep, a fifth stage pays
        return Layout(1, 1, 16, 4 if save and not two_bytes else 5)
    return Layout(2, 1, 14, 4)


def backward_layout(shape: Shape, *, gate: bool) -> Layout:
    """The fastest of those timed on an H200."""
    e = shape.e
    if state_blocks(shape.n) > 1:
        return Layout(1, 1, 1, 2)
    if gate or _is_small(shape) or e <= 8:
        warps = min(4, -(-e // 8))
        return Layout(1, warps, 1 if gate else 12 // warps, 2)
    if e <= 16:
        return Layout(2, 1, 12, 2)
    if e % 192 and e % 24 == 0:
        if e == 48:
            return Layout(2, 3, 4, 2)
        return Layout(3, 4 if e % 96 == 0 else 1, 1, 2, buffers=2)
    return Layout(2, min(4, -(-e // 16)), 3, 2)


def _is_small(shape: Shape) -> bool:
    """Whether warps are so few, even with 8 channels each, that latency decides."""
    return shape.b * shape.g * -(-shape.e // 8) <= _SMALL_WARPS


def chunk_layout(e: int, n: int) -> Layout:
    """The layout of the kernel that computes where chunks end."""
    return Layout(1, 1, 1 if state_blocks(n) > 1 else 16, 4)


def split_length(shape: Shape, layout: Layout, *, wanted: int) -> tuple[int, int]:
    """Steps of a chunk and the number of chunks: one, unless there would be few warps, as chunks cost another pass."""
    warps = shape.b * shape.g * -(-shape.e // (8 * layout.channels))
    min_steps = _MIN_CHUNK_STEPS
    if warps * -(-shape.length // min_steps) <= _FEW_WARPS:
        min_steps = _MIN_SHORT_CHUNK_STEPS
    chunks = min(-(-wanted // warps), shape.length // min_steps, _MAX_CHUNKS)
    if chunks <= 1:
        return shape.length, 1
    chunk = -(-shape.length // chunks // TILE) * TILE
    return chunk, -(-shape.length // chunk)


def split_forward(shape: Shape, layout: Layout) -> tuple[int, int]:
    """`split_length` of the forward pass."""
    return split_length(shape, layout, wanted=_FORWARD_WARPS)


def split_backward(shape: Shape, layout: Layout) -> tuple[int, int]:
    """`split_length` of the backward pass."""
    return split_length(shape, layout, wanted=_BACKWARD_WARPS)


def saved_shape(b: int, length: int, g: int, n: int, e: int) -> tuple[int, ...]:
    """The states before every tile, with states filled up to blocks of 16."""
    return b, -(-length // TILE), g, e, 16 * state_blocks(n)


@functools.cache
def variant(
    source: str, shape: tuple[int, int], layout: Layout, types: Types, alignments: Alignments, options: Options
) -> Variant:
    """A variant of a kernel; `shape` is (e, n)."""
    e, n = shape
    blocks = state_blocks(n)
    constants: dict[str, int | str] = {
        "CHANNELS": layout.channels,
        "WARPS": layout.warps,
        "MIN_BLOCKS": layout.min_blocks,
        "STAGES": layout.stages,
        "BUFFERS": layout.buffers,
        "STATE_BLOCKS": blocks,
        "ALL_STATES": int(n == 16 * blocks),
        "FULL": int(e % layout.block_channels == 0),
        "U": _NAMES[types.u],
        "X": _NAMES[types.x],
        "Y": _NAMES[types.y],
        "Z": _NAMES[types.z],
        "SAVED": _NAMES[types.saved],
        "BC_GRAD": _NAMES[types.bc_grad],
        "U_GRAD": _NAMES[types.u_grad],
        **{f"ALIGN_{name.upper()}": value for name, value in alignments._asdict().items()},
        **{name.upper(): int(value) for name, value in options._asdict().items()},
    }
    return the_variant(
        _FOLDER / f"{source}.cu",
        f"scan_{source}",
        tuple(constants.items()),
        32 * layout.warps,
        _shared_bytes(source, blocks, layout, types, options),
    )


@functools.cache
def sum_variant(function: str, types: Types, *, vector_bc: bool) -> Variant:
    """A kernel of sums.cu."""
    constants: dict[str, int | str] = {
        "BC_GRAD": _NAMES[types.bc_grad],
        "X": _NAMES[types.x],
        "VECTOR_BC": int(vector_bc),
    }
    return the_variant(_FOLDER / "sums.cu", function, tuple(constants.items()), 256, 1024)


def _shared_bytes(source: str, blocks: int, layout: Layout, types: Types, options: Options) -> int:
    """As the kernels divide it; they refuse to compile with another number."""
    e, n = 8 * layout.channels, 16 * blocks
    u, x, y, z, saved = (t.itemsize for t in (types.u, types.x, types.y, types.z, types.saved))
    wide = 0 if x == 4 else TILE * n * 4
    if source == "chunk":
        gate = z if options.gate and options.reverse else 0
        stage = TILE * (e * ((y if options.reverse else u) + x + gate) + n * x)
        return layout.stages * stage + 2 * (TILE * e * 8 + wide)
    gate = z if options.gate else 0
    cells = layout.stages * TILE * 4
    if source == "forward":
        stage = TILE * (e * (u + x + gate) + 2 * n * x)
        return layout.warps * (layout.stages * stage + 2 * (TILE * e * 24 + 2 * wide) + cells)
    stage = TILE * (e * (y + u + x + gate) + 2 * n * x) + e * n * saved
    sums = layout.buffers * blocks * 4 * 2 * (512 + 64)
    warp = layout.stages * stage + TILE * (e + 2) * 16 + sums + 2 * wide + cells
    return layout.warps * warp + (0 if layout.warps == 1 else 2 * 2 * layout.warps * 512)
