"""The Triton scans as torch operators: what is saved for backward, and shapes without data for torch.compile.

Triton is imported where an operator first runs. b batch, d channels, l steps, g groups, n states; in a route scan
m heads, k routes, d channels of a head, r rank.
"""

import torch
from torch import Tensor

from mhsvm.ops.triton.plan import Inputs, num_saved

# Up to here the kernels multiply the step size out themselves; beyond, a matrix product costs less.
_MAX_RANK = 4


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`mhsvm.ops.selective_scan`; B and C are (b, g, n, l). Fastest where u, delta and z are transposed (b, l, d)."""
    save = _needs_gradient(u, delta, A, B, C, D, z, delta_bias)
    y, last, _ = _selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save)
    return (y, last) if return_last_state else y


def route_scan(
    u: Tensor,
    x_dbl: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    order: Tensor,
    inverse: Tensor,
) -> Tensor:
    """`mhsvm.ops.route_scan`: follows the routes by index, and makes a step size of low rank from its r numbers."""
    r, n = dt_weight.shape[-1], A.shape[-1]
    delta = None
    if r > _MAX_RANK:
        step, x_dbl = x_dbl.split((r, 2 * n), dim=-1)
        with torch.autocast(u.device.type, enabled=False):
            delta = torch.einsum("blmkr,mkdr->blmkd", step.float(), dt_weight.float())
        dt_weight = None
    save = _needs_gradient(u, x_dbl, delta, dt_weight, dt_bias, A, D)
    y, _ = _route_scan(u, x_dbl, delta, dt_weight, dt_bias, A, D, order, save)
    return y


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _sequence_inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus) -> Inputs:
    g = B.shape[1]

    def by_group(x: Tensor | None, dim: int) -> Tensor | None:
        return None if x is None else x.unflatten(dim, (g, -1))

    u, delta, z = (by_group(None if x is None else x.mT, 2) for x in (u, delta, z))
    A, D, bias = (by_group(x, 0) for x in (A, D, delta_bias))
    B, C = (x.permute(0, 3, 1, 2) for x in (B, C))
    return Inputs(u, delta, None, None, A.mT, B, C, D, z, bias, None, delta_softplus)


@torch.library.custom_op(
    "mhsvm::triton_selective_scan",
    mutates_args=(),
    schema="(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "bool delta_softplus, bool save) -> (Tensor, Tensor, Tensor)",
)
def _selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save):
    from mhsvm.ops.triton import launch

    b, d, length = u.shape
    inputs = _sequence_inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    y = u.new_empty((b, length, d))
    last, saved = launch.forward(inputs, y.unflatten(2, (B.shape[1], -1)), save=save)
    return y.mT, last.mT.flatten(1, 2), saved


@_selective_scan.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save):
    b, d, length = u.shape
    g, n = B.shape[1], A.shape[1]
    saved = num_saved(length, n) if save else 0
    y = u.new_empty((b, length, d)).mT
    return y, *(u.new_empty(x, dtype=torch.float32) for x in ((b, d, n), (b, saved, g, n, d // g)))


@torch.library.custom_op(
    "mhsvm::triton_selective_scan_backward",
    mutates_args=(),
    schema="(Tensor grad_y, Tensor? grad_last, Tensor saved, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
    "Tensor? D, Tensor? z, Tensor? delta_bias, bool delta_softplus) -> Tensor[]",
)
def _selective_scan_backward(grad_y, grad_last, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    from mhsvm.ops.triton import launch

    inputs = _sequence_inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    g = B.shape[1]
    grad_last = None if grad_last is None else grad_last.unflatten(1, (g, -1)).mT.contiguous()
    grads = launch.backward(inputs, saved, grad_y.mT.unflatten(2, (g, -1)), grad_last)
    grad_B, grad_C = (x.permute(0, 2, 3, 1) for x in grads.projections)
    by_input = (
        (u, grads.u.flatten(2).mT),
        (delta, grads.delta.flatten(2).mT),
        (A, grads.A.mT.flatten(0, 1)),
        (B, grad_B),
        (C, grad_C),
        (D, None if D is None else grads.D.flatten()),
        (z, None if z is None else grads.z.flatten(2).mT),
        (delta_bias, None if delta_bias is None else grads.bias.flatten()),
    )
    return [grad.to(x.dtype) for x, grad in by_input if x is not None]


@_selective_scan_backward.register_fake
def _(grad_y, grad_last, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    sequences = [_like_transposed(x) for x in (u, delta)]
    B, C = (x.new_empty((x.shape[0], x.shape[3], *x.shape[1:3])).permute(0, 2, 3, 1) for x in (B, C))
    optional = (D, None if z is None else _like_transposed(z), delta_bias)
    return [*sequences, torch.empty_like(A), B, C, *(torch.empty_like(x) for x in optional if x is not None)]


def _like_transposed(x: Tensor) -> Tensor:
    b, d, length = x.shape
    return x.new_empty((b, length, d)).mT


def _save_selective_scan(ctx, inputs, output):
    *tensors, ctx.delta_softplus, _ = inputs
    ctx.save_for_backward(output[2], *tensors)
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _differentiate_selective_scan(ctx, grad_y, grad_last, _):
    saved, *tensors = ctx.saved_tensors
    grad_y = torch.zeros_like(tensors[0]) if grad_y is None else grad_y
    grads = iter(_selective_scan_backward(grad_y, grad_last, saved, *tensors, ctx.delta_softplus))
    return *(None if x is None else next(grads) for x in tensors), None, None


_selective_scan.register_autograd(_differentiate_selective_scan, setup_context=_save_selective_scan)


def _route_inputs(u, x_dbl, delta, dt_weight, dt_bias, A, D, order) -> Inputs:
    n = A.shape[-1]
    x_dbl = x_dbl.flatten(2, 3)
    step, B, C = x_dbl.split((x_dbl.shape[-1] - 2 * n, n, n), dim=-1)
    dt_bias, A, D, order = (x.flatten(0, 1) for x in (dt_bias, A, D, order))
    if delta is None:
        return Inputs(u, None, step, dt_weight.flatten(0, 1).mT, A.mT, B, C, D, None, dt_bias, order, True)
    return Inputs(u, delta.flatten(2, 3), None, None, A.mT, B, C, D, None, dt_bias, order, True)


# Either `delta`, (b, l, m, k, d), or `dt_weight` is given; with `delta`, x_dbl is B and C alone.
@torch.library.custom_op(
    "mhsvm::triton_route_scan",
    mutates_args=(),
    schema="(Tensor u, Tensor x_dbl, Tensor? delta, Tensor? dt_weight, Tensor dt_bias, Tensor A, Tensor D, "
    "Tensor order, bool save) -> (Tensor, Tensor)",
)
def _route_scan(u, x_dbl, delta, dt_weight, dt_bias, A, D, order, save):
    from mhsvm.ops.triton import launch

    b, length, m, d = u.shape
    y = u.new_empty((b, m, A.shape[1], length, d), dtype=torch.float32)
    inputs = _route_inputs(u, x_dbl, delta, dt_weight, dt_bias, A, D, order)
    _, saved = launch.forward(inputs, y.flatten(1, 2).transpose(1, 2), save=save)
    return y, saved


@_route_scan.register_fake
def _(u, x_dbl, delta, dt_weight, dt_bias, A, D, order, save):
    b, length, m, d = u.shape
    k, n = A.shape[1], A.shape[3]
    saved = num_saved(length, n) if save else 0
    return tuple(u.new_empty(x, dtype=torch.float32) for x in ((b, m, k, length, d), (b, saved, m * k, n, d)))


@torch.library.custom_op(
    "mhsvm::triton_route_scan_backward",
    mutates_args=(),
    schema="(Tensor grad_y, Tensor saved, Tensor u, Tensor x_dbl, Tensor? delta, Tensor? dt_weight, Tensor dt_bias, "
    "Tensor A, Tensor D, Tensor order) -> Tensor[]",
)
def _route_scan_backward(grad_y, saved, u, x_dbl, delta, dt_weight, dt_bias, A, D, order):
    from mhsvm.ops.triton import launch

    inputs = _route_inputs(u, x_dbl, delta, dt_weight, dt_bias, A, D, order)
    grads = launch.backward(inputs, saved, grad_y.flatten(1, 2).transpose(1, 2), None, joint=True)
    by_input = (
        (u, grads.u),
        (x_dbl, grads.projections[0]),
        (delta, grads.delta),
        (dt_weight, None if dt_weight is None else grads.weight.mT),
        (dt_bias, grads.bias),
        (A, grads.A.mT),
        (D, grads.D),
    )
    return [grad.reshape(x.shape).to(x.dtype) for x, grad in by_input if x is not None]


@_route_scan_backward.register_fake
def _(grad_y, saved, u, x_dbl, delta, dt_weight, dt_bias, A, D, order):
    return [x.new_empty(x.shape) for x in (u, x_dbl, delta, dt_weight, dt_bias, A, D) if x is not None]


def _save_route_scan(ctx, inputs, output):
    *tensors, _ = inputs
    ctx.save_for_backward(output[1], *tensors)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate_route_scan(ctx, grad_y, _):
    saved, *tensors = ctx.saved_tensors
    grads = iter(_route_scan_backward(grad_y, saved, *tensors))
    *differentiable, _ = tensors
    return *(None if x is None else next(grads) for x in differentiable), None, None


_route_scan.register_autograd(_differentiate_route_scan, setup_context=_save_route_scan)
