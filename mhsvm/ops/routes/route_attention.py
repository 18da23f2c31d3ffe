"""Scan Route Attention: the sum over the routes of a scan, weighted by a gate on how much they differ.

Letters are those of `mhsvm.ops`.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mhsvm.ops import triton_support
from mhsvm.ops.dispatch import Operation
from mhsvm.ops.routes.gates import EPS, GATES, find_gate
from mhsvm.ops.routes.route_statistics import check_routes, cpu_route_statistics, route_statistics_reference
from mhsvm.ops.scan.cpu import cpu_scan

# Elements of a program: with 4 routes, 16 numbers a lane.
_BLOCK = 512
# Numbers that are moved at once, at most: 16 bytes of a 16-bit type.
_MAX_VECTOR = 8
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}


def route_attention(
    y: Tensor,
    *,
    gate: str = "relu",
    threshold: float | Tensor | None = None,
    power: float = 2.0,
    dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> Tensor:
    """Sum the routes of each head, weighted by a gate on their coefficient of variation, into one map.

    cv = std_k(y) / (mean_k(y - min_k y) + 1e-5),  z = (sum_k y) * gate(cv)

    Args:
        y: Outputs of the routes as `route_scan` gives them, (b, m, k, l, d), float32 or float64, at least two routes.
        gate: "relu" max(0, cv - t), "sigmoid" 1/(1+e^-(cv-t)), "power" cv^p, "exp" e^(cv-t), "none" 1, or a
            registered gate.
        threshold: t, one number or one a head, (m, 1, 1); by default 0.5 for "relu", 0 for "sigmoid" and "exp". The
            other gates have none, and ignore it.
        power: p of "power", at least 1 (below, its gradient is infinite where all routes are equal).
        dtype: Type of the result, by default that of `y`; all is computed in the type of `y`.
        backend: As in `selective_scan`.
    Returns:
        z, (b, l, m*d), the channels of a head contiguous.
    Raises:
        ValueError: `y` or `threshold` has another shape, type or device, the gate is unknown, the power is below 1, or
            `backend` is unknown or cannot run here.
    Source: Ji 2024, arXiv 2406.05992.
    """
    known = find_gate(gate, power=power)
    check_routes(y)
    _check(y, threshold)
    threshold = known.choose_threshold(threshold)
    return ROUTE_ATTENTION(backend, y, gate=gate, threshold=threshold, power=power, dtype=dtype or y.dtype)


def route_attention_reference(
    y: Tensor,
    *,
    gate: str,
    threshold: float | Tensor,
    power: float,
    dtype: torch.dtype,
    statistics: Callable[[Tensor], tuple[Tensor, Tensor]] = route_statistics_reference,
) -> Tensor:
    """`route_attention` as statistics, gate and product: the reference."""
    weigh = GATES[gate].weigh
    if weigh is None:
        z = y.sum(dim=2)
    else:
        z, variation = statistics(y)
        z = z * weigh(variation, threshold, power)  # (b, m, l, d)
    return z.to(dtype).transpose(1, 2).flatten(2)


def triton_route_attention(
    y: Tensor, *, gate: str, threshold: float | Tensor, power: float, dtype: torch.dtype
) -> Tensor:
    """`route_attention` of float32 by kernels; by the reference if the gate has no kernel."""
    if not GATES[gate].fused:
        return route_attention_reference(y, gate=gate, threshold=threshold, power=power, dtype=dtype)
    if isinstance(threshold, Tensor):
        return _route_attention(y, threshold, 0.0, power, gate, dtype)
    return _route_attention(y, None, threshold, power, gate, dtype)


def _check(y: Tensor, threshold: float | Tensor | None) -> None:
    if y.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"y must be float32 or float64, since rounded routes cannot be distinguished; got {y.dtype}. "
            "Pass the outputs of the scan unchanged, and ask for the type of the result by dtype"
        )
    if not isinstance(threshold, Tensor):
        return
    if tuple(threshold.shape) != (y.shape[1], 1, 1):
        raise ValueError(
            f"threshold must be one number, or one a head, (m, 1, 1) = {(y.shape[1], 1, 1)} for this y; "
            f"got {tuple(threshold.shape)}"
        )
    if threshold.device != y.device:
        raise ValueError(f"threshold is on {threshold.device} and y on {y.device}: move them to one device")


# The gradients need only y, which the scan keeps in any case.
@torch.library.custom_op(
    "mhsvm::triton_route_attention",
    mutates_args=(),
    schema="(Tensor y, Tensor? thresholds, float threshold, float power, str gate, ScalarType dtype) -> Tensor",
)
def _route_attention(y, thresholds, threshold, power, gate, dtype):
    from mhsvm.ops.routes.route_attention_kernels import route_attention_fwd_kernel

    z = _empty_map(y, thresholds, threshold, power, gate, dtype)
    with torch.cuda.device_of(y):
        route_attention_fwd_kernel[_grid(y)](p_z=z, **_arguments(y, thresholds, threshold, power, gate), **_OPTIONS)
    return z


@_route_attention.register_fake
def _empty_map(y, thresholds, threshold, power, gate, dtype):
    b, m, _, length, d = y.shape
    return y.new_empty((b, length, m * d), dtype=dtype)


@torch.library.custom_op(
    "mhsvm::triton_route_attention_backward",
    mutates_args=(),
    schema="(Tensor grad_z, Tensor y, Tensor? thresholds, float threshold, float power, str gate) -> (Tensor, Tensor)",
)
def _route_attention_backward(grad_z, y, thresholds, threshold, power, gate):
    from mhsvm.ops.routes.route_attention_kernels import route_attention_bwd_kernel

    grad_y, grad_thresholds = _empty_gradients(grad_z, y, thresholds, threshold, power, gate)
    # A sum for each program, added in a fixed order.
    sums = None if thresholds is None else thresholds.new_empty(_grid(y)[::-1], dtype=torch.float32)
    with torch.cuda.device_of(y):
        route_attention_bwd_kernel[_grid(y)](
            p_dz=grad_z.contiguous(),
            p_dy=grad_y,
            p_dthresholds=sums,
            **_arguments(y, thresholds, threshold, power, gate),
            **_OPTIONS,
        )
    if sums is not None:
        grad_thresholds.copy_(sums.sum((0, 2)).view(grad_thresholds.shape))
    return grad_y, grad_thresholds


# The gradient of thresholds that are not given is empty.
@_route_attention_backward.register_fake
def _empty_gradients(grad_z, y, thresholds, threshold, power, gate):
    return y.new_empty(y.shape), y.new_empty(0) if thresholds is None else thresholds.new_empty(thresholds.shape)


def _save(ctx, inputs, output):
    y, thresholds, ctx.threshold, ctx.power, ctx.gate, _ = inputs
    ctx.save_for_backward(y, thresholds)


def _differentiate(ctx, grad_z):
    y, thresholds = ctx.saved_tensors
    grad_y, grad_thresholds = _route_attention_backward(grad_z, y, thresholds, ctx.threshold, ctx.power, ctx.gate)
    return grad_y, None if thresholds is None else grad_thresholds, None, None, None, None


_route_attention.register_autograd(_differentiate, setup_context=_save)


def _grid(y: Tensor) -> tuple[int, int, int]:
    """Blocks of a plane, heads, samples."""
    b, m, _, length, d = y.shape
    return -(-length * d // _BLOCK), m, b


def _arguments(y: Tensor, thresholds: Tensor | None, threshold: float, power: float, gate: str) -> dict[str, object]:
    """The arguments of both kernels."""
    from mhsvm.ops.routes.gates_kernels import FUSED_GATES

    _, _, k, length, d = y.shape
    vector = math.gcd(d, _MAX_VECTOR)
    return {
        "p_y": y.contiguous(),
        "p_thresholds": None if thresholds is None else thresholds.float().contiguous(),
        "size": length * d,
        "vectors": d // vector,
        "threshold": threshold,
        "power": power,
        "GATE": FUSED_GATES[gate],
        "EPS": EPS,
        "ROUTES": k,
        "K": 1 << (k - 1).bit_length(),
        "VECTOR": vector,
        "BLOCK": _BLOCK,
    }


ROUTE_ATTENTION = Operation("route_attention", route_attention_reference)
ROUTE_ATTENTION.register(
    "triton",
    triton_route_attention,
    unsupported_reason=triton_support.unsupported_by_triton,
)
ROUTE_ATTENTION.register(
    "cpu",
    partial(route_attention_reference, statistics=cpu_route_statistics),
    unsupported_reason=cpu_scan.unsupported_reason,
)
