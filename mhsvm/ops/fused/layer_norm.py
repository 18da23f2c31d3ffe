"""LayerNorm over the last axis, alone or as the input of a gate."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.fused import layer_norm_launch as triton_norm
from mhsvm.ops.fusion import autocast_dtype, fuses


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, *, gate: Tensor | None = None, epsilon: float = 1e-5, narrow: bool = False
) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias over the last axis, then * SiLU(gate) if there is one.

    Statistics are kept in float32, or float64 for such an x. On a GPU it is one Triton kernel, unless the environment
    variable MHSVM_BACKEND names another backend; elsewhere, and under torch.compile, it is torch's operations.

    Args:
        x: (..., c), any float type.
        weight, bias: (c).
        gate: Shaped like x.
        epsilon: Added to the variance.
        narrow: Under autocast, put out its 16-bit type instead of float32: for a linear layer or a convolution behind,
            which would round to that type itself.
    Returns:
        Shaped like x, in the type that torch's operations give; with `narrow` under autocast in autocast's.
    Raises:
        ValueError: The shapes do not belong together.
    Source: Ba et al. 2016, arXiv 1607.06450.
    """
    if x.ndim == 0 or weight.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        raise ValueError(
            f"weight and bias have one number a channel, that is x.shape[-1:]; received x {tuple(x.shape)}, "
            f"weight {tuple(weight.shape)}, bias {tuple(bias.shape)}"
        )
    if gate is not None and gate.shape != x.shape:
        raise ValueError(f"the gate is shaped like x, {tuple(x.shape)}; received {tuple(gate.shape)}")
    if not fuses(x):
        return composed_layer_norm(x, weight, bias, gate=gate, epsilon=epsilon, narrow=narrow)
    dtype = autocast_dtype(x)
    if dtype is None:
        dtype = x.dtype if gate is None else torch.promote_types(x.dtype, gate.dtype)
    elif not narrow:
        dtype = torch.float32
    return triton_norm.layer_norm(x, weight, bias, gate, epsilon=epsilon, dtype=dtype)


def composed_layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, *, gate: Tensor | None = None, epsilon: float = 1e-5, narrow: bool = False
) -> Tensor:
    """`layer_norm` by torch's operations: the reference of the fused one."""
    y = F.layer_norm(x, weight.shape, weight, bias, epsilon)
    if gate is not None:
        y = y * F.silu(gate)
    dtype = autocast_dtype(x) if narrow else None
    return y if dtype is None else y.to(dtype)
