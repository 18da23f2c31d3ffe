"""The Triton scans as operators of torch with gradients, and their shapes for torch.compile.

Triton is imported when an operator first runs. Letters are those of `mhsvm.ops`.
"""

import torch
from torch import Tensor

from mhsvm.ops.routes.projection import project
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
    """`mhsvm.ops.scan.selective_scan.sequence_scan`."""
    save = _needs_gradient(u, delta, A, B, C, D, z, delta_bias)
    y, last, _ = _selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save)
    return (y, last) if return_last_state else y


def route_scan(
    u: Tensor,
    x_proj: Tensor,
    delta_proj: Tensor,
    delta_bias: Tensor,
    A: Tensor,
    D: Tensor,
    order: Tensor,
    inverse: Tensor,
) -> Tensor:
    """`mhsvm.ops.route_scan`; reads the cells of a route by index.

    One product computes delta, B and C: its weight is the product of both projections of delta, and the projections of
    B and C.
    """
    low_rank, others = x_proj.split((delta_proj.shape[-1], 2 * A.shape[-1]), dim=2)
    # the types of both projections may differ; under autocast the product is in its type
    product = (delta_proj @ low_rank.to(delta_proj.dtype)).to(low_rank.dtype)
    projected = project(u, torch.cat((product, others), dim=2))
    save = _needs_gradient(u, projected, delta_bias, A, D)
    y, _ = _route_scan(u, projected, delta_bias, A, D, order, save)
    return y


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _sequence_inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus) -> Inputs:
    g = B.shape[2]

    def by_group(x: Tensor | None, dim: int) -> Tensor | None:
        return None if x is None else x.unflatten(dim, (g, -1))

    u, delta, z = (by_group(x, 2) for x in (u, delta, z))
    A, D, bias = (by_group(x, 0) for x in (A, D, delta_bias))
    return Inputs(u, delta.unsqueeze(3), A.mT, B.unsqueeze(3), C.unsqueeze(3), D, z, bias, None, delta_softplus)


@torch.library.custom_op(
    "mhsvm::triton_selective_scan",
    mutates_args=(),
    schema="(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "bool delta_softplus, bool save) -> (Tensor, Tensor, Tensor)",
)
def _selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save):
    from mhsvm.ops.scan.triton import triton_launch

    inputs = _sequence_inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    y = u.new_empty(u.shape)
    last, saved = triton_launch.forward(inputs, y.unflatten(2, (B.shape[2], -1)), save=save)
    return y, _by_channel(last), saved


@_selective_scan.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save):
    b, length, d = u.shape
    g, n = B.shape[2:]
    last = u.new_empty((b, g, n, d // g), dtype=torch.float32)
    saved = (b, num_saved(length, n) if save else 0, g, n, d // g)
    return u.new_empty(u.shape), _by_channel(last), u.new_empty(saved, dtype=partial_dtype(u))


def _by_channel(last: Tensor) -> Tensor:
    """Last state (b, g, n, e) -> (b, d, n)."""
    return last.mT.flatten(1, 2)


@torch.library.custom_op(
    "mhsvm::triton_selective_scan_backward",
    mutates_args=(),
    schema="(Tensor grad_y, Tensor? grad_last, Tensor saved, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
    "Tensor? D, Tensor? z, Tensor? delta_bias, bool delta_softplus) -> Tensor[]",
)
def _selective_scan_backward(grad_y, grad_last, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    from mhsvm.ops.scan.triton import triton_launch

    inputs = _sequence_inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    g = B.shape[2]
    grad_last = None if grad_last is None else grad_last.unflatten(1, (g, -1)).mT.contiguous()
    grad_delta, grad_B, grad_C = (x.new_empty(x.shape) for x in (inputs.delta, inputs.B, inputs.C))
    projections = grad_delta, grad_B, grad_C
    grads = triton_launch.backward(inputs, saved, grad_y.unflatten(2, (g, -1)), grad_last, projections=projections)
    by_input = [
        (u, grads.u.flatten(2)),
        (delta, grad_delta.flatten(2)),
        (B, grad_B.squeeze(3)),
        (C, grad_C.squeeze(3)),
    ]
    if grads.z is not None:
        by_input.append((z, grads.z.flatten(2)))
    return [*(grad.to(x.dtype) for x, grad in by_input), grads.sums]


@_selective_scan_backward.register_fake
def _(grad_y, grad_last, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    sequences = (x.new_empty(x.shape) for x in (u, delta, B, C, z) if x is not None)
    return [*sequences, _empty_sums(A, D, delta_bias)]


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
    dA, dD, dbias = _split_sums(sums, A, D, bias, groups=B.shape[2])
    return du, ddelta, dA, dB, dC, dD, None if z is None else dz[0], dbias, None, None


_selective_scan.register_autograd(_differentiate_selective_scan, setup_context=_save_selective_scan)


def _empty_sums(A: Tensor, D: Tensor | None, bias: Tensor | None) -> Tensor:
    """Gradients of the parameters in one row, so that one sum over samples computes them all."""
    return A.new_empty(sum(0 if x is None else x.numel() for x in (A, D, bias)), dtype=torch.float32)


def _split_sums(
    sums: Tensor, A: Tensor, D: Tensor | None, bias: Tensor | None, *, groups: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of A (..., n), D and bias from that row, where A is in the order of the kernels, (g, n, e)."""
    dA, dD, dbias = sums.split([0 if x is None else x.numel() for x in (A, D, bias)])
    dA = dA.view(groups, A.shape[-1], -1).mT.reshape(A.shape).to(A.dtype)
    return dA, *(None if x is None else dx.view(x.shape).to(x.dtype) for x, dx in ((D, dD), (bias, dbias)))


def _route_inputs(u, projected, delta_bias, A, D, order) -> Inputs:
    delta, B, C = _split(projected, A)
    delta_bias, A, D, order = (x.flatten(0, 1) for x in (delta_bias, A, D, order))
    return Inputs(u, delta, A.mT, B, C, D, None, delta_bias, order, True)


def _split(projected: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return projected.split((A.shape[2], A.shape[3], A.shape[3]), dim=-1)


# projected (b, l, m, k, d + 2n) holds delta, B and C.
@torch.library.custom_op(
    "mhsvm::triton_route_scan",
    mutates_args=(),
    schema="(Tensor u, Tensor projected, Tensor delta_bias, Tensor A, Tensor D, Tensor order, bool save) "
    "-> (Tensor, Tensor)",
)
def _route_scan(u, projected, delta_bias, A, D, order, save):
    from mhsvm.ops.scan.triton import triton_launch

    b, length, m, d = u.shape
    y = u.new_empty((b, m, A.shape[1], length, d), dtype=torch.float32)
    inputs = _route_inputs(u, projected, delta_bias, A, D, order)
    _, saved = triton_launch.forward(inputs, y.flatten(1, 2).transpose(1, 2), save=save)
    return y, saved


@_route_scan.register_fake
def _(u, projected, delta_bias, A, D, order, save):
    b, length, m, d = u.shape
    k, n = A.shape[1], A.shape[3]
    saved = (b, num_saved(length, n) if save else 0, m * k, n, d)
    return u.new_empty((b, m, k, length, d), dtype=torch.float32), u.new_empty(saved, dtype=partial_dtype(u))


@torch.library.custom_op(
    "mhsvm::triton_route_scan_backward",
    mutates_args=(),
    schema="(Tensor grad_y, Tensor saved, Tensor u, Tensor projected, Tensor delta_bias, Tensor A, Tensor D, "
    "Tensor order) -> Tensor[]",
)
def _route_scan_backward(grad_y, saved, u, projected, delta_bias, A, D, order):
    from mhsvm.ops.scan.triton import triton_launch

    inputs = _route_inputs(u, projected, delta_bias, A, D, order)
    grad_projected = _heads_first(projected)
    grad_y = grad_y.flatten(1, 2).transpose(1, 2)
    grads = triton_launch.backward(inputs, saved, grad_y, None, projections=_split(grad_projected, A))
    return [grads.u, grad_projected, grads.sums]


@_route_scan_backward.register_fake
def _(grad_y, saved, u, projected, delta_bias, A, D, order):
    b, length, m, d = u.shape
    grad_u = u.new_empty((b, length, m * A.shape[1], d), dtype=partial_dtype(u) if A.shape[1] > 1 else u.dtype)
    return [grad_u, _heads_first(projected), _empty_sums(A, D, delta_bias)]


def _heads_first(projected: Tensor) -> Tensor:
    """An empty tensor like `projected`, in the memory order of the product that reads it: a head contiguous."""
    b, length, m, k, width = projected.shape
    return projected.new_empty((m, b, length, k, width)).permute(1, 2, 0, 3, 4)


def _save_route_scan(ctx, inputs, output):
    *tensors, _ = inputs
    ctx.save_for_backward(output[1], *tensors)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate_route_scan(ctx, grad_y, _):
    saved, *tensors = ctx.saved_tensors
    u, _, delta_bias, A, D, _ = tensors
    by_route, grad_projected, sums = _route_scan_backward(grad_y, saved, *tensors)
    dA, dD, dbias = _split_sums(sums, A, D, delta_bias, groups=delta_bias.shape[:2].numel())
    # Here, not inside the operator, so that torch's compiler can fuse the sum with later operations.
    grad_u = by_route.unflatten(2, (u.shape[2], -1)).sum(3).to(u.dtype)
    return grad_u, grad_projected, dbias, dA, dD, None, None


_route_scan.register_autograd(_differentiate_route_scan, setup_context=_save_route_scan)
