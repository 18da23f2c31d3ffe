"""The norm around parallel branches: of a map, split into sequences, and of the sequences, joined to a row a cell.

Shapes: b batch, l cells, p branches of v channels, c = p*v.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.fused import branches_launch as triton_branches
from mhsvm.ops.fusion import autocast_dtype, fuses


class Branches(NamedTuple):
    """What `split_norm` makes of a map.

    Attributes:
        parts: (b*p, l, v), a sequence for each branch of each sample.
        residual: The same numbers, for `join_norm`, which adds them to what was mixed: an output of its own, whose
            gradient need not be added to that of `parts` by a kernel of its own.
        weight, bias, skip_scale, epsilon: As they were given.
        rows: The parameters as the kernels behind want them; None where torch's operations ran.
    """

    parts: Tensor
    residual: Tensor
    weight: Tensor
    bias: Tensor
    skip_scale: Tensor
    epsilon: float
    rows: Tensor | None = None


def split_norm(
    x: Tensor, weight: Tensor, bias: Tensor, skip_scale: Tensor, *, branches: int, epsilon: float = 1e-5
) -> Branches:
    """LayerNorm of each cell's channels, which are then split into branches: the input of a mixer of sequences.

    On a GPU it is one Triton kernel that reads the map where it lies, channels first or last, unless the environment
    variable MHSVM_BACKEND names another backend; elsewhere, and under torch.compile, it is torch's operations.

    Args:
        x: Map (b, c, *spatial), any float type; statistics are float32, or float64 for such an x.
        weight, bias: (c).
        skip_scale: One number, what `join_norm` multiplies the residual by.
        branches: Number of branches p, a divisor of c.
        epsilon: Added to the variance.
    Raises:
        ValueError: The shapes do not belong together.
    Source: Wu et al. 2024, arXiv 2403.20035; Ba et al. 2016, arXiv 1607.06450.
    """
    if x.ndim < 3 or branches < 1 or x.shape[1] % branches:
        raise ValueError(f"x is (b, c, *spatial) with c a multiple of branches={branches}; received {tuple(x.shape)}")
    if weight.shape != x.shape[1:2] or bias.shape != x.shape[1:2] or skip_scale.numel() != 1:
        raise ValueError(
            f"weight and bias have one number for each of {x.shape[1]} channels, skip_scale has one; received "
            f"{tuple(weight.shape)}, {tuple(bias.shape)}, {tuple(skip_scale.shape)}"
        )
    if not fuses(x):
        return composed_split_norm(x, weight, bias, skip_scale, branches=branches, epsilon=epsilon)
    dtype = x.dtype if autocast_dtype(x) is None else torch.float32
    parts, residual, rows = triton_branches.split_norm(
        x.flatten(2), weight, bias, skip_scale, branches=branches, epsilon=epsilon, dtype=dtype
    )
    return Branches(parts, residual, weight, bias, skip_scale, epsilon, rows)


def join_norm(mixed: Tensor, branches: Branches, *, narrow: bool = False) -> Tensor:
    """The same LayerNorm of each cell's channels, now of mixed + skip_scale * residual with the branches side by side.

    It runs where `split_norm` ran.

    Args:
        mixed: (b*p, l, v), what a mixer made of `branches.parts`.
        branches: From `split_norm`.
        narrow: Under autocast, put out its 16-bit type instead of float32: for a linear layer behind, which would
            round to that type itself.
    Returns:
        (b, l, c), in the type that torch's operations give; with `narrow` under autocast in autocast's.
    Raises:
        ValueError: `mixed` has another shape than the parts.
    """
    if mixed.shape != branches.residual.shape:
        raise ValueError(
            f"a mixer keeps the shape of the sequences, {tuple(branches.residual.shape)}; received {tuple(mixed.shape)}"
        )
    if branches.rows is None or not fuses(mixed):
        return composed_join_norm(mixed, branches, narrow=narrow)
    dtype = autocast_dtype(mixed)
    if dtype is None:
        dtype = torch.promote_types(mixed.dtype, torch.result_type(branches.skip_scale, branches.residual))
    elif not narrow:
        dtype = torch.float32
    num_branches = len(branches.weight) // mixed.shape[2]
    return triton_branches.join_norm(
        mixed, branches.residual, branches.rows, branches=num_branches, epsilon=branches.epsilon, dtype=dtype
    )


def composed_split_norm(
    x: Tensor, weight: Tensor, bias: Tensor, skip_scale: Tensor, *, branches: int, epsilon: float = 1e-5
) -> Branches:
    """`split_norm` by torch's operations: the reference of the fused one."""
    rows = F.layer_norm(x.flatten(2).transpose(1, 2), weight.shape, weight, bias, epsilon)  # (b, l, c)
    parts = rows.unflatten(2, (branches, -1)).transpose(1, 2).flatten(0, 1)  # (b*p, l, v)
    return Branches(parts, parts, weight, bias, skip_scale, epsilon)


def composed_join_norm(mixed: Tensor, branches: Branches, *, narrow: bool = False) -> Tensor:
    """`join_norm` by torch's operations: the reference of the fused one."""
    _, residual, weight, bias, skip_scale, epsilon, _ = branches
    num_branches = len(weight) // mixed.shape[2]
    parts = (mixed + skip_scale * residual).unflatten(0, (len(mixed) // num_branches, num_branches))
    y = F.layer_norm(parts.transpose(1, 2).flatten(2), weight.shape, weight, bias, epsilon)  # (b, l, c)
    dtype = autocast_dtype(y) if narrow else None
    return y if dtype is None else y.to(dtype)
