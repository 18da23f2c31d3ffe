"""Inputs and gradients of a scan as GPU kernels read and write them.

Letters are those of `mhsvm.ops`; g = m * k in a route scan.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """Tensors of a scan in the order in which the kernels read them.

    Attributes:
        u: (b, l, m, e), or (b, l, g, e) for a sequence.
        delta: (b, l, m, k, e).
        A: (g, n, e).
        B, C: (b, l, m, k, n).
        D, bias: (g, e) or None.
        z: (b, l, g, e) or None.
        order: Step -> cell, (g, l), integers; None if steps are in memory order.
        softplus: Whether delta goes through softplus.
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
    """Gradients of `Inputs` except delta, B and C.

    Attributes:
        u: (b, l, g, e), one for each route.
        z: (b, l, g, e) or None.
        sums: Gradients of A (g, n, e) and, if given, of D and bias (g, e), in one row; float32.
    """

    u: Tensor
    z: Tensor | None
    sums: Tensor


def partial_dtype(u: Tensor) -> torch.dtype:
    """Type of the tensors between kernels, saved states and partial sums: bfloat16 for bfloat16 inputs, as it has
    the range of float32, else float32. In registers they are always float32."""
    return torch.bfloat16 if u.dtype == torch.bfloat16 else torch.float32
