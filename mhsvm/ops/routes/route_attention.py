"""Scan Route Attention: the sum over the routes of a scan, weighed by how much they differ.

b batch, m heads, k routes of a head, l cells, d channels of a head.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mhsvm.ops import availability
from mhsvm.ops.dispatch import Operation
from mhsvm.ops.routes import route_attention_autograd as triton
from mhsvm.ops.routes import route_statistics_cpu as cpu_statistics
from mhsvm.ops.routes.gates import GATES, find_gate
from mhsvm.ops.routes.route_statistics import check_routes, composed_route_statistics
from mhsvm.ops.scan.cpu import scan as cpu


def route_attention(
    y: Tensor,
    *,
    gate: str = "relu",
    threshold: float | Tensor | None = None,
    power: float = 2.0,
    dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> Tensor:
    """Sum the routes of each head, weighed by a gate on their coefficient of variation, into one map.

    cv = std_k(y) / (mean_k(y - min_k y) + 1e-5),  z = (sum_k y) * gate(cv)

    Args:
        y: Outputs of the routes as `route_scan` gives them, (b, m, k, l, d), float32 or float64, at least two routes.
        gate: "relu" max(0, cv - t), "sigmoid" 1/(1+e^-(cv-t)), "power" cv^p, "exp" e^(cv-t), "none" 1.
        threshold: t, one number or one a head, (m, 1, 1); by default 0.5 for "relu", 0 for "sigmoid" and "exp". The
            other gates have none, and pass over it.
        power: p of "power", at least 1 (below, its gradient is infinite where all routes are equal).
        dtype: Of the result, by default that of `y`; all is computed in that of `y`.
        backend: As in `selective_scan`.
    Returns:
        z, (b, l, m*d), the heads' channels side by side.
    Raises:
        ValueError: `y` or `threshold` has another shape, type or device, the gate is unknown, the power is below 1, or
            `backend` is unknown or cannot run here.
    Source: Ji 2024, arXiv 2406.05992.
    """
    known = find_gate(gate, power=power)
    check_routes(y)
    _check(y, threshold)
    if known.default_threshold is None:
        threshold = None
    elif threshold is None:
        threshold = known.default_threshold
    return ROUTE_ATTENTION(backend, y, gate=gate, threshold=threshold, power=power, dtype=dtype or y.dtype)


def composed_route_attention(
    y: Tensor,
    *,
    gate: str,
    threshold: float | Tensor | None,
    power: float,
    dtype: torch.dtype,
    statistics: Callable[[Tensor], tuple[Tensor, Tensor]] = composed_route_statistics,
) -> Tensor:
    """`route_attention` as statistics, gate, product: the reference of the fused ones."""
    weigh = GATES[gate].weigh
    if weigh is None:
        z = y.sum(dim=2)
    else:
        z, variation = statistics(y)
        z = z * weigh(variation, threshold, power)  # (b, m, l, d)
    return z.to(dtype).transpose(1, 2).flatten(2)


def _check(y: Tensor, threshold: float | Tensor | None) -> None:
    if y.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"y must be float32 or float64, since rounded routes cannot be told apart; got {y.dtype}. "
            "Hand on what the scan gives, and ask for the result's type by dtype"
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


def _unsupported_by_triton(y: Tensor, *, gate: str, **options: object) -> str | None:
    reason = availability.unsupported_tensor_reason(y)
    # A plain sum has no gate: the operation by name is torch's own sum.
    if reason is None and not GATES[gate].fused and GATES[gate].weigh is not None:
        return f"its kernels have no gate {gate!r}"
    return reason


def _triton_route_attention(y: Tensor, **options: object) -> Tensor:
    if GATES[options["gate"]].weigh is None:
        return composed_route_attention(y, **options)
    return triton.route_attention(y, **options)


ROUTE_ATTENTION = Operation("route_attention", composed_route_attention)
ROUTE_ATTENTION.register("triton", _triton_route_attention, unsupported_reason=_unsupported_by_triton)
ROUTE_ATTENTION.register(
    "cpu",
    partial(composed_route_attention, statistics=cpu_statistics.route_statistics),
    unsupported_reason=lambda y, **options: cpu.unsupported_reason(y),
)
