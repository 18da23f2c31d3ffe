"""Scan Route Attention: a gate over the routes of a scan head."""

import torch
from torch import Tensor, nn

from mhsvm.ops import route_attention
from mhsvm.ops.routes.gates import GATES, find_gate


class ScanRouteAttention(nn.Module):
    """Sum the routes of each head, weighted by a gate on how much they differ.

    cv = std_k(y) / (mean_k(y - min_k y) + 1e-5),  z = (sum_k y) * gate(cv)

    Args:
        heads: Number of scan heads m.
        gate: "relu" max(0, cv - t), "sigmoid" 1/(1+e^-(cv-t)), "power" cv^p, "exp" e^(cv-t), "none" 1, or a
            registered gate.
        threshold: t; by default 0.5 for "relu" and 0 for "sigmoid" and "exp". The other gates have none.
        learnable: Whether t is one learnable scalar a head.
        power: p of "power", at least 1 (below, its gradient is infinite where all routes are equal).
        backend: As in `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: The gate is unknown, has no threshold to learn, or the power is below 1.
    Source: Ji 2024, arXiv 2406.05992.
    """

    def __init__(
        self,
        heads: int,
        *,
        gate: str = "relu",
        threshold: float | None = None,
        learnable: bool = False,
        power: float = 2.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        default = find_gate(gate, power=power).default_threshold
        self.gate = gate
        self.power = power
        self.backend = backend
        self.threshold: nn.Parameter | float | None
        if not learnable:
            self.threshold = default if threshold is None else threshold
        elif default is None:
            with_threshold = [name for name, known in GATES.items() if known.default_threshold is not None]
            raise ValueError(
                f"gate {gate!r} has no threshold to learn; use one of {', '.join(with_threshold)}, "
                "or leave the threshold fixed"
            )
        else:
            start = float(default if threshold is None else threshold)
            self.threshold = nn.Parameter(torch.full((heads, 1, 1), start))

    def forward(self, y: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
        """Route outputs (b, m, k, l, d), float32 or float64 -> map (b, l, m*d), of `dtype`, by default that of y."""
        return route_attention(
            y, gate=self.gate, threshold=self.threshold, power=self.power, dtype=dtype, backend=self.backend
        )

    def extra_repr(self) -> str:
        return f"gate={self.gate!r}"
