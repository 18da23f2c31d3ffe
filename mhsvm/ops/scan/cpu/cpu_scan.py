"""The backend "cpu": kernels of numba as operators of torch, with gradients, known to its compiler.

A sequence of g groups is a map of g heads with one route, whose order is that of the sequence. The operators take
float32: u, z (b, l, m, d); delta (b, l, m, d), or else projected (b, l, m, k, r) and weight (m, k, d, r); bias, D
(m, k, d); A (m, k, d, n); B, C (b, l, m, k, n); order (m, k, l), int64. They return y (b, m, k, l, d), the last state
(b, m, k, d, n), and the states before each tile if the backward pass needs them. Letters are those of `mhsvm.ops`.
"""

import importlib.util
from typing import List  # noqa: UP035

import torch
from torch import Tensor

from mhsvm.ops.routes.projection import project
from mhsvm.ops.scan.cpu.layout import BLOCKS, LANES, num_splits, num_tiles

_NUMBA_IS_MISSING = importlib.util.find_spec("numba") is None


def unavailable_reason() -> str | None:
    """Why this machine cannot run it, or None if it can."""
    return "numba is not installed: pip install numba" if _NUMBA_IS_MISSING else None


def unsupported_reason(u: Tensor, *arguments: object, **options: object) -> str | None:
    """Why it cannot take an operation's first argument, or None if it can."""
    if u.device.type != "cpu":
        return f"it scans on the CPU, and u is on {u.device}"
    if u.dtype == torch.float64:
        return "it keeps the state in float32, and u is float64"
    return None


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
    """`mhsvm.ops.scan.selective_scan.sequence_scan`. Any memory order is read in place."""
    out_dtype = u.dtype
    length, groups = u.shape[1], B.shape[2]
    u, delta = (x.float().unflatten(2, (groups, -1)) for x in (u, delta))
    z = None if z is None else z.float().unflatten(2, (groups, -1))
    B, C = (x.float().unsqueeze(3) for x in (B, C))
    A = A.float().unflatten(0, (groups, 1, -1))
    D, delta_bias = (None if x is None else x.float().reshape(A.shape[:3]) for x in (D, delta_bias))
    order = torch.arange(length).expand(groups, 1, -1)
    y, last_state = _scan(u, delta, None, None, delta_bias, A, B, C, D, z, order, delta_softplus)
    y = y.squeeze(2).transpose(1, 2).flatten(2).to(out_dtype)
    return (y, last_state.flatten(1, 3)) if return_last_state else y


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
    """`mhsvm.ops.route_scan`; reads the cells of a route by index, and delta in its smaller low-rank form."""
    n, r = A.shape[3], delta_proj.shape[3]
    projected, B, C = project(u, x_proj).float().split((r, n, n), dim=-1)
    u, weight, bias, A, D = (x.float() for x in (u, delta_proj, delta_bias, A, D))
    y, _ = _scan(u, None, projected, weight, bias, A, B, C, D, None, order.long(), True)
    return y


def _scan(
    u: Tensor,
    delta: Tensor | None,
    projected: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    order: Tensor,
    use_softplus: bool,
) -> tuple[Tensor, Tensor]:
    tensors = (u, delta, projected, weight, bias, A, B, C, D, z)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    y, last_state, _ = _forward(*tensors, order, use_softplus, keep)
    return y, last_state


@torch.library.custom_op("mhsvm::cpu_scan", mutates_args=())
def _forward(
    u: Tensor,
    delta: Tensor | None,
    projected: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    order: Tensor,
    use_softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    # numba is imported by the first scan, not by `import mhsvm.ops`.
    from mhsvm.ops.scan.cpu import cpu_launch

    outputs = _empty_outputs(u, delta, projected, weight, bias, A, B, C, D, z, order, use_softplus, keep)
    cpu_launch.forward(u, delta, projected, weight, bias, A, B, C, D, z, order, use_softplus, *outputs)
    return outputs


@_forward.register_fake
def _empty_outputs(u, delta, projected, weight, bias, A, B, C, D, z, order, use_softplus, keep):
    b, length, m, d = u.shape
    _, k, _, n = A.shape
    # The output of a sequence has the memory order of its input.
    y = u.new_empty(b, m, k, length, d) if delta is None else torch.empty_like(u).transpose(1, 2).unsqueeze(2)
    last_state = u.new_empty(b, m, k, d, n)
    starts = (b, m, k, num_splits(d), num_tiles(length), BLOCKS, n, LANES)
    return y, last_state, u.new_empty(starts if keep else (0,))


@torch.library.custom_op("mhsvm::cpu_scan_backward", mutates_args=())
def _backward(
    u: Tensor,
    delta: Tensor | None,
    projected: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    order: Tensor,
    use_softplus: bool,
    starts: Tensor,
    grad_y: Tensor,
    grad_last_state: Tensor,
) -> List[Tensor]:  # noqa: UP006  torch 2.6 reads no other spelling
    from mhsvm.ops.scan.cpu import cpu_launch

    return cpu_launch.backward(
        u, delta, projected, weight, bias, A, B, C, D, z, order, use_softplus, starts, grad_y, grad_last_state
    )


@_backward.register_fake
def _empty_gradients(u, delta, projected, weight, bias, A, B, C, D, z, *others):
    return [x.new_empty(x.shape) for x in (u, delta, projected, weight, bias, A, B, C, D, z) if x is not None]


def _save(ctx, inputs, output):
    *tensors, order, use_softplus, _ = inputs
    _, _, starts = output
    ctx.save_for_backward(*tensors, order, starts)
    ctx.use_softplus = use_softplus


def _differentiate(ctx, grad_y, grad_last_state, _):
    *tensors, order, starts = ctx.saved_tensors
    gradients = iter(_backward(*tensors, order, ctx.use_softplus, starts, grad_y, grad_last_state))
    return *(None if x is None else next(gradients) for x in tensors), None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
