"""Gates over the routes of a scan: a weight from the variation of the routes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mhsvm.registry import Registry

# Added to the denominator of the coefficient of variation.
EPS = 1e-5


@dataclass(frozen=True)
class Gate:
    """A weight from the variation of the routes. A new gate needs one `GATES.add` and runs on every backend.

    Attributes:
        weigh: (variation, threshold, power) -> weight, of the shape of the variation; None weighs all with 1.
        default_threshold: None if the gate has no threshold; `weigh` then gets 0.
        fused: Whether `mhsvm.ops.routes.gates_kernels` has a kernel of the same name; otherwise the reference runs.
    """

    weigh: Callable[[Tensor, float | Tensor, float], Tensor] | None
    default_threshold: float | None
    fused: bool = False

    def choose_threshold(self, threshold: float | Tensor | None) -> float | Tensor:
        """The threshold for `weigh`: the one given, or by default that of the gate; 0 if the gate has none."""
        if self.default_threshold is None:
            return 0.0
        return self.default_threshold if threshold is None else threshold


GATES: Registry[Gate] = Registry("gate")

GATES.add("relu", Gate(lambda cv, threshold, power: torch.relu(cv - threshold), 0.5, fused=True))
GATES.add("sigmoid", Gate(lambda cv, threshold, power: torch.sigmoid(cv - threshold), 0.0, fused=True))
GATES.add("power", Gate(lambda cv, threshold, power: cv**power, None, fused=True))
GATES.add("exp", Gate(lambda cv, threshold, power: torch.exp(cv - threshold), 0.0, fused=True))
# Not fused: the gradient of a plain sum needs no outputs of the routes, which the kernels would keep and read.
GATES.add("none", Gate(None, None))


def find_gate(name: str, *, power: float) -> Gate:
    """Look up a gate and check the power.

    Raises:
        ValueError: The name is unknown, or the power is below 1.
    """
    gate = GATES[name]
    if power < 1:
        raise ValueError(f"the power of a gate is at least 1; received {power}")
    return gate
