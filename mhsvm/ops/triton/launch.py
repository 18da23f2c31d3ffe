"""Launchers of the scan kernels: the memory that is written, and grids. Letters are those of `plan`."""

import torch
from torch import Tensor

from mhsvm.ops.triton.backward_kernels import backward_kernel
from mhsvm.ops.triton.forward_kernels import carry_kernel, chunk_kernel, scan_kernel
from mhsvm.ops.triton.plan import BLOCK_CHANNELS, Gradients, Inputs, Plan, num_saved, plan_backward, plan_forward

# One warp holds a tile. Fused multiply-adds are asked for by name, as Triton is to change its default.
_OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}


def forward(inputs: Inputs, y: Tensor, *, save: bool) -> tuple[Tensor, Tensor]:
    """Write y (b, l, g, e); return the last state (b, g, n, e) and the states before each span, or nothing."""
    inputs = _readable(inputs)
    b, length, g, e, n = _sizes(inputs)
    plan = plan_forward(inputs)
    last = inputs.u.new_empty((b, g, n, e), dtype=torch.float32)
    spans = num_saved(length, n) if save else 0
    saved = last.new_empty((b, spans, g, n, e))
    starts, routes = None, g // inputs.u.shape[2]
    if plan.num_chunks > 1:
        starts = _chunk_states(
            inputs, plan, inputs.u, inputs.B, routes=g // inputs.u.shape[2], seed=None, reverse=False
        )
    with torch.cuda.device_of(inputs.u):
        scan_kernel[(b * plan.num_chunks * g * plan.parts,)](
            inputs.u, inputs.delta, inputs.step, inputs.weight, inputs.A, inputs.B, inputs.C, inputs.D, inputs.z,
            inputs.bias, inputs.order, starts, y, saved if save else None, last,
            length, plan.chunk, plan.num_chunks, g, e, n,
            *_strides(inputs.u, inputs.delta, inputs.step, inputs.B, inputs.C, inputs.z, y),
            ROUTES=routes, RANK=_rank(inputs), SOFTPLUS=inputs.softplus,
            SPAN=plan.span, **plan.tile, **_OPTIONS,
        )  # fmt: skip
    return last, saved


def backward(
    inputs: Inputs, saved: Tensor, grad_y: Tensor, grad_last: Tensor | None, *, joint: bool = False
) -> Gradients:
    """Gradients from those of y (b, l, g, e) and of the last state (b, g, n, e); sums in float32, in a fixed order.

    `joint` leaves the gradients of step, B and C side by side in one tensor.
    """
    inputs = _readable(inputs)
    grad_y = _unit_last_stride(grad_y)
    b, length, g, e, n = _sizes(inputs)
    rank, routes = _rank(inputs), g // inputs.u.shape[2]
    plan = plan_backward(inputs)
    chunks, states = (b, plan.num_chunks, g, e), (b, plan.num_chunks, g, n, e)
    if plan.num_chunks > 1:
        carry = _chunk_states(inputs, plan, grad_y, inputs.C, routes=1, seed=grad_last, reverse=True)
    elif grad_last is not None:
        carry = grad_last.float().clone()
    else:
        carry = None

    du = torch.empty((b, length, g, e), dtype=torch.float32 if routes > 1 else inputs.u.dtype, device=saved.device)
    ddelta = None if inputs.delta is None else torch.empty_like(du, dtype=inputs.delta.dtype)
    dz = None if inputs.z is None else torch.empty_like(du, dtype=inputs.z.dtype)
    dtype = inputs.B.dtype if plan.parts == 1 else torch.float32
    widths = (rank + 2 * n,) if joint else (n, n)
    projections = [torch.empty((plan.parts, b, length, g, w), dtype=dtype, device=saved.device) for w in widths]
    dstep, dB, dC = projections[0].split((rank, n, n), dim=-1) if joint else (None, *projections)
    dA = saved.new_empty(states)
    dD, dbias = (None if x is None else saved.new_empty(chunks) for x in (inputs.D, inputs.bias))
    dweight = None if inputs.weight is None else saved.new_empty((b, plan.num_chunks, g, rank, e))
    blocks = -(-e // (BLOCK_CHANNELS * plan.parts))
    with torch.cuda.device_of(inputs.u):
        backward_kernel[(b * plan.num_chunks * g * plan.parts,)](
            grad_y, inputs.u, inputs.delta, inputs.step, inputs.weight, inputs.A, inputs.B, inputs.C, inputs.D,
            inputs.z, inputs.bias, inputs.order, saved, carry,
            du, ddelta, dstep, dB, dC, dz, dA, dD, dbias, dweight,
            length, plan.chunk, plan.num_chunks, plan.parts, b, g, e, n,
            *_strides(grad_y, inputs.u, inputs.delta, inputs.step, inputs.B, inputs.C, inputs.z, du, dB[0]),
            ROUTES=routes, RANK=rank, SOFTPLUS=inputs.softplus, BLOCKS=blocks,
            R=_power_of_2(rank), **plan.tile, **_OPTIONS,
        )  # fmt: skip
    if routes > 1:
        du = du.unflatten(2, (-1, routes)).sum(3)
    dA, dD, dbias, dweight = (None if x is None else x.sum((0, 1)) for x in (dA, dD, dbias, dweight))
    projections = tuple(x[0] if plan.parts == 1 else x.sum(0) for x in projections)
    return Gradients(du, ddelta, projections, dweight, dA, dD, dz, dbias)


def _chunk_states(
    inputs: Inputs, plan: Plan, x: Tensor, B: Tensor, *, routes: int, seed: Tensor | None, reverse: bool
) -> Tensor:
    """The state, or in reverse the gradient, that enters each chunk, (b, chunks, g, n, e)."""
    b, length, g, e, n = _sizes(inputs)
    z = inputs.z if reverse else None
    ends = torch.empty((b, plan.num_chunks, g, n, e), dtype=torch.float32, device=x.device)
    sums = ends.new_empty((b, plan.num_chunks, g, e))
    blocks = -(-e // BLOCK_CHANNELS)
    with torch.cuda.device_of(x):
        chunk_kernel[(b * plan.num_chunks * g * blocks,)](
            x, inputs.delta, inputs.step, inputs.weight, inputs.A, B, z, inputs.bias, inputs.order, ends, sums,
            length, plan.chunk, plan.num_chunks, g, e, n,
            *_strides(x, inputs.delta, inputs.step, B, z),
            ROUTES=routes, RANK=_rank(inputs), SOFTPLUS=inputs.softplus, REVERSE=reverse, **plan.tile, **_OPTIONS,
        )  # fmt: skip
        block = 128
        carry_kernel[(-(-g * e * n // block), b)](
            ends, sums, inputs.A, seed, plan.num_chunks, g * e * n, e, n, REVERSE=reverse, BLOCK=block, **_OPTIONS
        )
    return ends


def _sizes(inputs: Inputs) -> tuple[int, int, int, int, int]:
    b, length = inputs.u.shape[:2]
    g, n, e = inputs.A.shape
    return b, length, g, e, n


def _rank(inputs: Inputs) -> int:
    return 0 if inputs.weight is None else inputs.weight.shape[1]


def _power_of_2(x: int) -> int:
    return 1 << max(0, x - 1).bit_length()


def _strides(*tensors: Tensor | None) -> list[int]:
    """Of the batch, a cell and a group, for each tensor; its last axis is contiguous."""
    return [stride for x in tensors for stride in ((0, 0, 0) if x is None else x.stride()[:3])]


def _readable(inputs: Inputs) -> Inputs:
    """What the kernels can load: no float64, contiguous last axes, contiguous parameters."""
    fields = {
        name: x.float() if torch.is_tensor(x) and x.dtype == torch.float64 else x
        for name, x in inputs._asdict().items()
    }
    for name in ("u", "delta", "step", "B", "C", "z"):
        fields[name] = _unit_last_stride(fields[name])
    for name in ("weight", "A", "D", "bias", "order"):
        fields[name] = None if fields[name] is None else fields[name].contiguous()
    return Inputs(**fields)


def _unit_last_stride(x: Tensor | None) -> Tensor | None:
    return x if x is None or x.stride(-1) == 1 else x.contiguous()
