"""Scan Route Attention: a gate over the routes of a scan head."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mhsvm.ops import route_statistics


@dataclass(frozen=True)
class Gate:
    """How the variation of the routes becomes a weight.

    Attributes:
        weigh: (variation, threshold, power) -> weight, of the shape of the variation; None weighs all with 1.
        default_threshold: None if the gate has no threshold.
    """

    weigh: Callable[[Tensor, float | Tensor, float], Tensor] | None
    default_threshold: float | None


GATES: dict[str, Gate] = {
    "relu": Gate(lambda cv, threshold, power: torch.relu(cv - threshold), 0.5),
    "sigmoid": Gate(lambda cv, threshold, power: torch.sigmoid(cv - threshold), 0.0),
    "power": Gate(lambda cv, threshold, power: cv**power, None),
    "exp": Gate(lambda cv, threshold, power: torch.exp(cv - threshold), 0.0),
    "none": Gate(None, None),
}


class ScanRouteAttention(nn.Module):
    """Sum the routes of each head, weighted by a gate on how much they differ.

    cv = std_k(y) / (mean_k(y - min_k y) + 1e-5),  z = (sum_k y) * gate(cv)

    Args:
        heads: Number of scan heads m.
        gate: "relu" max(0, cv - t), "sigmoid" 1/(1+e^-(cv-t)), "power" cv^p, "exp" e^(cv-t), "none" 1.
        threshold: t; by default 0.5 for "relu" and 0 for "sigmoid" and "exp". The other gates have none.
        learnable: Make t one learnable scalar a head.
        power: p of "power", at least 1 (below, its gradient is infinite where all routes are equal).
        backend: Of the statistics over the routes, see `mhsvm.ops.route_statistics`.
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
        if gate not in GATES:
            raise ValueError(f"gate is one of {', '.join(GATES)}; received {gate!r}")
        default = GATES[gate].default_threshold
        if learnable and default is None:
            with_threshold = [name for name, known in GATES.items() if known.default_threshold is not None]
            raise ValueError(
                f"gate {gate!r} has no threshold to learn; use one of {', '.join(with_threshold)}, "
                "or leave the threshold fixed"
            )
        if power < 1:
            raise ValueError(f"the power of a gate is at least 1; received {power}")
        self.gate = gate
        self.power = power
        self.backend = backend
        start = default if threshold is None else threshold
        self.threshold = nn.Parameter(torch.full((heads, 1, 1), float(start))) if learnable else start

    def forward(self, y: Tensor) -> Tensor:
        """Route outputs (b, m, k, l, d), float32 or float64 -> (b, m, l, d)."""
        weigh = GATES[self.gate].weigh
        if weigh is None:
            return y.sum(dim=2)
        z, variation = route_statistics(y, backend=self.backend)
        return z * weigh(variation, self.threshold, self.power)

    def extra_repr(self) -> str:
        return f"gate={self.gate!r}"
