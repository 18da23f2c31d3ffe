"""Launchers of the scan kernels: the memory that is written, and grids. Letters are those of `plan`."""

import torch
from torch import Tensor

from mhsvm.ops.scan.triton.backward_kernels import backward_kernel
from mhsvm.ops.scan.triton.forward_kernels import carry_kernel, chunk_kernel, scan_kernel
from mhsvm.ops.scan.triton.plan import (
    BLOCK_CHANNELS,
    Gradients,
    Inputs,
    Plan,
    num_saved,
    partial_dtype,
    plan_backward,
    plan_forward,
)

# One warp holds a tile. Fused multiply-adds are asked for by name, as Triton is to change its default.
_OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}


def forward(inputs: Inputs, y: Tensor, *, save: bool) -> tuple[Tensor, Tensor]:
    """Write y (b, l, g, e); return the last state (b, g, n, e) and the states before each span, or nothing."""
    inputs = _readable(inputs)
    b, length, g, e, n = _sizes(inputs)
    plan = plan_forward(inputs)
    last = inputs.u.new_empty((b, g, n, e), dtype=torch.float32)
    saved = last.new_empty((b, num_saved(length, n) if save else 0, g, n, e), dtype=partial_dtype(inputs.u))
    starts = None
    if plan.num_chunks > 1:
        starts = _chunk_states(inputs, plan, inputs.u, inputs.B, seed=None, reverse=False)
    with torch.cuda.device_of(inputs.u):
        scan_kernel[(b * plan.num_chunks * g * plan.parts,)](
            inputs.u, inputs.delta, inputs.A, inputs.B, inputs.C, inputs.D, inputs.z, inputs.bias, inputs.order,
            starts, y, saved if save else None, last,
            length, plan.chunk, plan.num_chunks, g, e, n,
            *_strides(3, inputs.u, y, inputs.z), *_strides(4, inputs.delta, inputs.B, inputs.C),
            ROUTES=inputs.B.shape[3], SOFTPLUS=inputs.softplus, SPAN=plan.span, **plan.tile, **_OPTIONS,
        )  # fmt: skip
    return last, saved


def backward(
    inputs: Inputs,
    saved: Tensor,
    grad_y: Tensor,
    grad_last: Tensor | None,
    *,
    projections: tuple[Tensor, Tensor, Tensor],
) -> Gradients:
    """Gradients from those of y (b, l, g, e) and of the last state (b, g, n, e); sums in float32, in a fixed order.

    Those of delta, B and C are written to `projections`, whose last axes are contiguous.
    """
    inputs = _readable(inputs)
    grad_y = _unit_last_stride(grad_y)
    ddelta, dB, dC = projections
    b, length, g, e, n = _sizes(inputs)
    routes = inputs.B.shape[3]
    plan = plan_backward(inputs)
    if plan.num_chunks > 1:
        carry = _chunk_states(inputs, plan, grad_y, inputs.C, seed=grad_last, reverse=True)
    else:
        carry = None if grad_last is None else grad_last.float().clone()

    by_route = partial_dtype(inputs.u) if routes > 1 else inputs.u.dtype
    du = torch.empty((b, length, g, e), dtype=by_route, device=saved.device)
    dz = None if inputs.z is None else torch.empty_like(du, dtype=inputs.z.dtype)
    # Sums over a group's channels, by part if it has several: much to write and read, so bfloat16 where that will do.
    dB_parts, dC_parts = dB[None], dC[None]
    if plan.parts > 1:
        dB_parts, dC_parts = torch.empty((2, plan.parts, *dB.shape), dtype=partial_dtype(inputs.u), device=saved.device)
    # A row for each chunk of a sample.
    sizes = [0 if x is None else x.numel() for x in (inputs.A, inputs.D, inputs.bias)]
    sums = torch.empty((b, plan.num_chunks, sum(sizes)), dtype=torch.float32, device=saved.device)
    dA, dD, dbias = (part if size else None for part, size in zip(sums.split(sizes, dim=2), sizes, strict=True))
    with torch.cuda.device_of(inputs.u):
        backward_kernel[(b * plan.num_chunks * g * plan.parts,)](
            grad_y, inputs.u, inputs.delta, inputs.A, inputs.B, inputs.C, inputs.D, inputs.z, inputs.bias,
            inputs.order, saved, carry, du, ddelta, dB_parts, dC_parts, dz, dA, dD, dbias,
            length, plan.chunk, plan.num_chunks, plan.parts, g, e, n, sums.shape[2],
            *_strides(3, grad_y, inputs.u, du, inputs.z), *_strides(4, inputs.delta, ddelta, inputs.B, inputs.C),
            *_strides(5, dB_parts),
            ROUTES=routes, SOFTPLUS=inputs.softplus, BLOCKS=-(-e // (BLOCK_CHANNELS * plan.parts)),
            **plan.tile, **_OPTIONS,
        )  # fmt: skip
    if plan.parts > 1:
        for grad, parts in ((dB, dB_parts), (dC, dC_parts)):
            if grad.dtype == parts.dtype:
                torch.sum(parts, 0, out=grad)
            else:
                grad.copy_(parts.sum(0))
    # Over chunks first: a small scan has many rows and few columns, and one sum over all rows would be a long one.
    by_sample = sums.sum(1) if plan.num_chunks > 1 else sums[:, 0]
    return Gradients(du, dz, by_sample.sum(0))


def _chunk_states(inputs: Inputs, plan: Plan, x: Tensor, B: Tensor, *, seed: Tensor | None, reverse: bool) -> Tensor:
    """The state, or in reverse the gradient, that enters each chunk, (b, chunks, g, n, e)."""
    b, length, g, e, n = _sizes(inputs)
    z = inputs.z if reverse else None
    ends = torch.empty((b, plan.num_chunks, g, n, e), dtype=torch.float32, device=x.device)
    sums = ends.new_empty((b, plan.num_chunks, g, e))
    blocks = -(-e // BLOCK_CHANNELS)
    with torch.cuda.device_of(x):
        # Nothing enters a chunk from the last one walked.
        chunk_kernel[(b * (plan.num_chunks - 1) * g * blocks,)](
            x, inputs.delta, inputs.A, B, z, inputs.bias, inputs.order, ends, sums,
            length, plan.chunk, plan.num_chunks, g, e, n,
            *_strides(3, x, z), *_strides(4, inputs.delta, B),
            ROUTES=inputs.B.shape[3], SOFTPLUS=inputs.softplus, REVERSE=reverse, **plan.tile, **_OPTIONS,
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


def _strides(axes: int, *tensors: Tensor | None) -> list[int]:
    """Of the first axes: batch, cell, and group, or head and route. The last axis is contiguous."""
    return [stride for x in tensors for stride in ((0,) * axes if x is None else x.stride()[:axes])]


def _readable(inputs: Inputs) -> Inputs:
    """What the kernels can load: no float64, contiguous last axes, contiguous parameters."""
    fields = {
        name: x.float() if torch.is_tensor(x) and x.dtype == torch.float64 else x
        for name, x in inputs._asdict().items()
    }
    for name in ("u", "delta", "B", "C", "z"):
        fields[name] = _unit_last_stride(fields[name])
    for name in ("A", "D", "bias", "order"):
        fields[name] = None if fields[name] is None else fields[name].contiguous()
    return Inputs(**fields)


def _unit_last_stride(x: Tensor | None) -> Tensor | None:
    return x if x is None or x.stride(-1) == 1 else x.contiguous()
