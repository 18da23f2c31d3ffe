"""The Triton scans as torch operators: what is saved for backward, and shapes without data for torch.compile.

Triton is imported where an operator first runs. b batch, d channels, l steps, g groups, n states; in a route scan
m heads, k routes, d channels of a head, r rank of the step size.
"""

import torch
from torch import Tensor

from mhsvm.ops.scan.triton.plan import Inputs, num_saved, partial_dtype


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
    dt_weight: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    order: Tensor,
    inverse: Tensor,
) -> Tensor:
    """`mhsvm.ops.route_scan`: follows the routes by index. Fastest without `dt_weight`."""
    if dt_weight is not None:
        n = A.shape[-1]
        step, projections = x_dbl.split((dt_weight.shape[-1], 2 * n), dim=-1)
        with torch.autocast(u.device.type, enabled=False):
            delta = torch.einsum("blmkr,mkdr->blmkd", step.float(), dt_weight.float())
            x_dbl = torch.cat((delta, projections), dim=-1)
    save = _needs_gradient(u, x_dbl, dt_bias, A, D)
    y, _ = _route_scan(u, x_dbl, dt_bias, A, D, order, save)
    return y


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _sequence_inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus) -> Inputs:
    g = B.shape[1]

    def by_group(x: Tensor | None, dim: int) -> Tensor | None:
        return None if x is None else x.unflatten(dim, (g, -1))

    u, delta, z = (by_group(None if x is None else x.mT, 2) for x in (u, delta, z))
    A, D, bias = (by_group(x, 0) for x in (A, D, delta_bias))
    B, C = (x.permute(0, 3, 1, 2).unsqueeze(3) for x in (B, C))
    return Inputs(u, delta.unsqueeze(3), A.mT, B, C, D, z, bias, None, delta_softplus)


@torch.library.custom_op(
    "mhsvm::triton_selective_scan",
    mutates_args=(),
    schema="(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "bool delta_softplus, bool save) -> (Tensor, Tensor, Tensor)",
)
def _selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save):
    from mhsvm.ops.scan.triton import launch

    b, d, length = u.shape
    inputs = _sequence_inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    y = u.new_empty((b, length, d))
    last, saved = launch.forward(inputs, y.unflatten(2, (B.shape[1], -1)), save=save)
    return y.mT, last.mT.flatten(1, 2), saved


@_selective_scan.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save):
    b, d, length = u.shape
    g, n = B.shape[1], A.shape[1]
    y, last = u.new_empty((b, length, d)).mT, u.new_empty((b, d, n), dtype=torch.float32)
    saved = (b, num_saved(length, n) if save else 0, g, n, d // g)
    return y, last, u.new_empty(saved, dtype=partial_dtype(u))


@torch.library.custom_op(
    "mhsvm::triton_selective_scan_backward",
    mutates_args=(),
    schema="(Tensor grad_y, Tensor? grad_last, Tensor saved, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
    "Tensor? D, Tensor? z, Tensor? delta_bias, bool delta_softplus) -> Tensor[]",
)
def _selective_scan_backward(grad_y, grad_last, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    from mhsvm.ops.scan.triton import launch

    inputs = _sequence_inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    g = B.shape[1]
    grad_last = None if grad_last is None else grad_last.unflatten(1, (g, -1)).mT.contiguous()
    grad_delta, grad_B, grad_C = projections = tuple(x.new_empty(x.shape) for x in (inputs.delta, inputs.B, inputs.C))
    grads = launch.backward(inputs, saved, grad_y.mT.unflatten(2, (g, -1)), grad_last, projections=projections)
    by_input = (
        (u, grads.u.flatten(2).mT),
        (delta, grad_delta.flatten(2).mT),
        (B, grad_B.squeeze(3).permute(0, 2, 3, 1)),
        (C, grad_C.squeeze(3).permute(0, 2, 3, 1)),
        (z, None if z is None else grads.z.flatten(2).mT),
    )
    return [*(grad.to(x.dtype) for x, grad in by_input if x is not None), grads.sums]


@_selective_scan_backward.register_fake
def _(grad_y, grad_last, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    B, C = (x.new_empty((x.shape[0], x.shape[3], *x.shape[1:3])).permute(0, 2, 3, 1) for x in (B, C))
    u, delta, z = (None if x is None else _like_transposed(x) for x in (u, delta, z))
    return [*(x for x in (u, delta, B, C, z) if x is not None), _empty_sums(A, D, delta_bias)]


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
    du, ddelta, dB, dC, *dz, sums = _selective_scan_backward(grad_y, grad_last, saved, *tensors, ctx.delta_softplus)
    _, _, A, B, _, D, z, bias = tensors
    dA, dD, dbias = _split_sums(sums, A, D, bias, groups=B.shape[1])
    return du, ddelta, dA, dB, dC, dD, None if z is None else dz[0], dbias, None, None


_selective_scan.register_autograd(_differentiate_selective_scan, setup_context=_save_selective_scan)


def _empty_sums(A: Tensor, D: Tensor | None, bias: Tensor | None) -> Tensor:
    """What a backward scan gives of the parameters: their gradients in one row, so that one sum makes them all."""
    return A.new_empty(sum(0 if x is None else x.numel() for x in (A, D, bias)), dtype=torch.float32)


def _split_sums(
    sums: Tensor, A: Tensor, D: Tensor | None, bias: Tensor | None, *, groups: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of A (..., n), D and bias in that row; that of A is as A lies in the kernels, channels side by side."""
    dA, dD, dbias = sums.split([0 if x is None else x.numel() for x in (A, D, bias)])
    dA = dA.view(groups, A.shape[-1], -1).mT.reshape(A.shape).to(A.dtype)
    return dA, *(None if x is None else dx.view(x.shape).to(x.dtype) for x, dx in ((D, dD), (bias, dbias)))


def _route_inputs(u, x_dbl, dt_bias, A, D, order) -> Inputs:
    delta, B, C = _split(x_dbl, A)
    dt_bias, A, D, order = (x.flatten(0, 1) for x in (dt_bias, A, D, order))
    return Inputs(u, delta, A.mT, B, C, D, None, dt_bias, order, True)


def _split(x_dbl: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x_dbl.split((A.shape[2], A.shape[3], A.shape[3]), dim=-1)


# x_dbl is (b, l, m, k, d + 2n): step size, B and C.
@torch.library.custom_op(
    "mhsvm::triton_route_scan",
    mutates_args=(),
    schema="(Tensor u, Tensor x_dbl, Tensor dt_bias, Tensor A, Tensor D, Tensor order, bool save) -> (Tensor, Tensor)",
)
def _route_scan(u, x_dbl, dt_bias, A, D, order, save):
    from mhsvm.ops.scan.triton import launch

    b, length, m, d = u.shape
    y = u.new_empty((b, m, A.shape[1], length, d), dtype=torch.float32)
    inputs = _route_inputs(u, x_dbl, dt_bias, A, D, order)
    _, saved = launch.forward(inputs, y.flatten(1, 2).transpose(1, 2), save=save)
    return y, saved


@_route_scan.register_fake
def _(u, x_dbl, dt_bias, A, D, order, save):
    b, length, m, d = u.shape
    k, n = A.shape[1], A.shape[3]
    saved = (b, num_saved(length, n) if save else 0, m * k, n, d)
    return u.new_empty((b, m, k, length, d), dtype=torch.float32), u.new_empty(saved, dtype=partial_dtype(u))


@torch.library.custom_op(
    "mhsvm::triton_route_scan_backward",
    mutates_args=(),
    schema="(Tensor grad_y, Tensor saved, Tensor u, Tensor x_dbl, Tensor dt_bias, Tensor A, Tensor D, Tensor order) "
    "-> Tensor[]",
)
def _route_scan_backward(grad_y, saved, u, x_dbl, dt_bias, A, D, order):
    from mhsvm.ops.scan.triton import launch

    inputs = _route_inputs(u, x_dbl, dt_bias, A, D, order)
    grad_x = _heads_first(x_dbl)
    grad_y = grad_y.flatten(1, 2).transpose(1, 2)
    grads = launch.backward(inputs, saved, grad_y, None, projections=_split(grad_x, A))
    return [grads.u, grad_x, grads.sums]


@_route_scan_backward.register_fake
def _(grad_y, saved, u, x_dbl, dt_bias, A, D, order):
    b, length, m, d = u.shape
    grad_u = u.new_empty((b, length, m * A.shape[1], d), dtype=partial_dtype(u) if A.shape[1] > 1 else u.dtype)
    return [grad_u, _heads_first(x_dbl), _empty_sums(A, D, dt_bias)]


def _heads_first(x_dbl: Tensor) -> Tensor:
    """An empty tensor like it in the memory order that the products behind it want: a head's cells together."""
    b, length, m, k, width = x_dbl.shape
    return x_dbl.new_empty((m, b, length, k, width)).permute(1, 2, 0, 3, 4)


def _save_route_scan(ctx, inputs, output):
    *tensors, _ = inputs
    ctx.save_for_backward(output[1], *tensors)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate_route_scan(ctx, grad_y, _):
    saved, *tensors = ctx.saved_tensors
    u, _, dt_bias, A, D, _ = tensors
    by_route, grad_x, sums = _route_scan_backward(grad_y, saved, *tensors)
    dA, dD, dbias = _split_sums(sums, A, D, dt_bias, groups=dt_bias.shape[:2].numel())
    # Here, not inside the operator: torch's compiler joins the sum to what follows.
    grad_u = by_route.unflatten(2, (u.shape[2], -1)).sum(3).to(u.dtype)
    return grad_u, grad_x, dbias, dA, dD, None, None


_route_scan.register_autograd(_differentiate_route_scan, setup_context=_save_route_scan)
