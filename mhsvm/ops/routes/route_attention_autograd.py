"""Scan Route Attention as operators of torch, with gradients, known to its compiler.

Nothing is kept for the gradients but the outputs of the routes, which the scan has written anyway.
b batch, m heads, k routes, l cells, d channels of a head.
"""

import torch
from torch import Tensor


def route_attention(
    y: Tensor, *, gate: str, threshold: float | Tensor | None, power: float, dtype: torch.dtype
) -> Tensor:
    """`mhsvm.ops.route_attention` of float32, for the gates in `mhsvm.ops.routes.gates_kernels`."""
    if isinstance(threshold, Tensor):
        return _route_attention(y, threshold, 0.0, power, gate, dtype)
    return _route_attention(y, None, threshold or 0.0, power, gate, dtype)


@torch.library.custom_op(
    "mhsvm::triton_route_attention",
    mutates_args=(),
    schema="(Tensor y, Tensor? thresholds, float threshold, float power, str gate, ScalarType dtype) -> Tensor",
)
def _route_attention(y, thresholds, threshold, power, gate, dtype):
    from mhsvm.ops.routes import route_attention_launch as attention_launch

    z = _empty_map(y, thresholds, threshold, power, gate, dtype)
    attention_launch.attend(y, thresholds, threshold, power, gate, z)
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
    from mhsvm.ops.routes import route_attention_launch as attention_launch

    grad_y, grad_thresholds = _empty_gradients(grad_z, y, thresholds, threshold, power, gate)
    sums = attention_launch.differentiate(grad_z, y, thresholds, threshold, power, gate, grad_y)
    if sums is not None:
        grad_thresholds.copy_(sums.view(grad_thresholds.shape))
    return grad_y, grad_thresholds


# Of thresholds that are not given, nothing.
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
