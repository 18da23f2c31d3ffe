"""Launchers of the kernels of Scan Route Attention: the memory that is written, and grids.

b batch, m heads, k routes, l cells, d channels of a head.
"""

import math

import torch
from torch import Tensor

from mhsvm.ops.routes.gates import EPS
from mhsvm.ops.routes.gates_kernels import FUSED_GATES
from mhsvm.ops.routes.route_attention_kernels import attend_kernel, differentiate_kernel

# Elements of a program: with 4 routes, 16 numbers a lane.
_BLOCK = 512
# Numbers that are moved at once, at most: 16 bytes of a 16-bit type.
_MAX_VECTOR = 8
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}


def attend(y: Tensor, thresholds: Tensor | None, threshold: float, power: float, gate: str, z: Tensor) -> None:
    """Write z, contiguous, (b, l, m*d)."""
    y, thresholds = _readable(y, thresholds)
    with torch.cuda.device_of(y):
        attend_kernel[_grid(y)](y, thresholds, z, *_sizes(y), threshold, power, **_constants(y, gate), **_OPTIONS)


def differentiate(
    grad_z: Tensor, y: Tensor, thresholds: Tensor | None, threshold: float, power: float, gate: str, grad_y: Tensor
) -> Tensor | None:
    """Write grad_y, contiguous; return the gradient of the thresholds (m) in float32, a sum in a fixed order."""
    y, thresholds = _readable(y, thresholds)
    sums = None if thresholds is None else thresholds.new_empty(_grid(y)[::-1])
    with torch.cuda.device_of(y):
        differentiate_kernel[_grid(y)](
            y, thresholds, grad_z.contiguous(), grad_y, sums, *_sizes(y), threshold, power,
            **_constants(y, gate), **_OPTIONS,
        )  # fmt: skip
    return None if sums is None else sums.sum((0, 2))


def _readable(y: Tensor, thresholds: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return y.contiguous(), None if thresholds is None else thresholds.float().contiguous()


def _grid(y: Tensor) -> tuple[int, int, int]:
    """Blocks of a plane, heads, samples."""
    b, m, _, length, d = y.shape
    return -(-length * d // _BLOCK), m, b


def _sizes(y: Tensor) -> tuple[int, int]:
    """Elements of a plane, vectors of channels."""
    _, _, _, length, d = y.shape
    return length * d, d // _vector(d)


def _vector(d: int) -> int:
    return math.gcd(d, _MAX_VECTOR)


def _constants(y: Tensor, gate: str) -> dict[str, object]:
    _, _, k, _, d = y.shape
    tile = {"ROUTES": k, "K": 1 << (k - 1).bit_length(), "VECTOR": _vector(d), "BLOCK": _BLOCK}
    return {"GATE": FUSED_GATES[gate], "EPSILON": EPS, **tile}
