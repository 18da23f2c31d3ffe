"""Scan Route Attention: a gate over the routes of a scan head."""

import torch
from torch import Tensor, nn

from mhsvm.layers.route_fusion import RouteFusion
from mhsvm.ops import route_attention, route_statistics
from mhsvm.ops.routes.gates import GATES, find_gate


class ScanRouteAttention(nn.Module):
    """Sum the routes of each head, weighted by a gate on how much they differ.

    cv = std_k(y) / (mean_k(y - min_k y) + 1e-5),  z = (sum_k y) * gate(cv)

    Another fusion than the sum replaces it.

    Args:
        heads: Number of scan heads m.
        gate: "relu" max(0, cv - t), "sigmoid" 1/(1+e^-(cv-t)), "power" cv^p, "exp" e^(cv-t), "none" 1, or a
            registered gate.
        threshold: t; by default 0.5 for "relu" and 0 for "sigmoid" and "exp". The other gates have none.
        learnable: Whether t is one learnable scalar a head.
        power: p of "power", at least 1 (below, its gradient is infinite where all routes are equal).
        fusion: "sum", or the name of a fusion: see `RouteFusion`.
        channels: Channels d of a head, which a fusion needs.
        backend: As in `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: The gate or fusion is unknown, the gate has no threshold to learn, the power is below 1, or a
            fusion has no channels.
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
        fusion: str = "sum",
        channels: int = 0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        known = find_gate(gate, power=power)
        if learnable and known.default_threshold is None:
            with_threshold = [name for name, each in GATES.items() if each.default_threshold is not None]
            raise ValueError(
                f"gate {gate!r} has no threshold to learn; use one of {', '.join(with_threshold)}, "
                "or leave the threshold fixed"
            )
        if fusion != "sum" and not channels:
            raise ValueError(f"the fusion {fusion!r} needs the channels of a head; received channels={channels}")
        self.fusion = None if fusion == "sum" else RouteFusion(heads, channels, kind=fusion)
        self.gate = gate
        self.power = power
        self.backend = backend
        self.threshold: nn.Parameter | float | None
        if learnable:
            self.threshold = nn.Parameter(torch.full((heads, 1, 1), float(known.choose_threshold(threshold))))
        else:
            self.threshold = threshold

    def forward(self, y: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
        """Route outputs (b, m, k, l, d), float32 or float64 -> map (b, l, m*d), of `dtype`, by default that of y."""
        if self.fusion is not None:
            return self._weigh(y, self.fusion(y)).permute(0, 2, 1, 3).flatten(2).to(dtype or y.dtype)
        return route_attention(
            y, gate=self.gate, threshold=self.threshold, power=self.power, dtype=dtype, backend=self.backend
        )

    def _weigh(self, y: Tensor, fused: Tensor) -> Tensor:
        """The fused routes (b, m, l, d), weighted by the gate."""
        gate = GATES[self.gate]
        if gate.weigh is None:
            return fused
        _, variation = route_statistics(y, backend=self.backend)
        return fused * gate.weigh(variation, gate.choose_threshold(self.threshold), self.power)

    def extra_repr(self) -> str:
        return f"gate={self.gate!r}"
