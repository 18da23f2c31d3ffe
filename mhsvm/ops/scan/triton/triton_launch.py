"""Launches of the scan kernels: output memory and grids. Letters are those of `plan`."""

import torch
from torch import Tensor

from mhsvm.ops.scan.inputs import Gradients, Inputs, partial_dtype
from mhsvm.ops.scan.triton.backward_kernels import selective_scan_bwd_kernel
from mhsvm.ops.scan.triton.forward_kernels import (
    selective_scan_fwd_carry_kernel,
    selective_scan_fwd_chunk_kernel,
    selective_scan_fwd_kernel,
)
from mhsvm.ops.scan.triton.plan import (
    BLOCK_CHANNELS,
    Plan,
    num_saved,
    plan_backward,
    plan_forward,
)

# One warp holds a tile. Fused multiply-adds are named, as Triton will change its default.
_OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}
_CARRY_BLOCK = 128


def forward(inputs: Inputs, y: Tensor, *, save: bool) -> tuple[Tensor, Tensor]:
    """Write y (b, l, g, e); return the last state (b, g, n, e) and the saved states, or none."""
    inputs = _readable(inputs)
    b, length, g, e, n = _sizes(inputs)
    plan = plan_forward(inputs)
    last = inputs.u.new_empty((b, g, n, e), dtype=torch.float32)
    saved = last.new_empty((b, num_saved(length, n) if save else 0, g, n, e), dtype=partial_dtype(inputs.u))
    starts = None
    if plan.num_chunks > 1:
        starts = _chunk_states(inputs, plan, inputs.u, inputs.B, initial=None, reverse=False)
    with torch.cuda.device_of(inputs.u):
        selective_scan_fwd_kernel[(b * plan.num_chunks * g * plan.splits,)](
            p_u=inputs.u,
            p_delta=inputs.delta,
            p_A=inputs.A,
            p_B=inputs.B,
            p_C=inputs.C,
            p_D=inputs.D,
            p_z=inputs.z,
            p_bias=inputs.bias,
            p_order=inputs.order,
            p_start=starts,
            p_y=y,
            p_saved=saved if save else None,
            p_last=last,
            **_split_sizes(inputs, plan),
            **_strides("s_ub s_ul s_um", inputs.u),
            **_strides("s_yb s_yl s_yg", y),
            **_strides("s_zb s_zl s_zm", inputs.z),
            **_strides("s_delta_b s_delta_l s_delta_m s_delta_k", inputs.delta),
            **_strides("s_Bb s_Bl s_Bm s_Bk", inputs.B),
            **_strides("s_Cb s_Cl s_Cm s_Ck", inputs.C),
            ROUTES=inputs.B.shape[3],
            SOFTPLUS=inputs.softplus,
            SAVE_STEPS=plan.save_steps,
            **plan.tile,
            **_OPTIONS,
        )
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

    The gradients of delta, B and C are written to `projections`, whose last axes are contiguous.
    """
    inputs = _readable(inputs)
    grad_y = _unit_last_stride(grad_y)
    ddelta, dB, dC = projections
    b, length, g, e, n = _sizes(inputs)
    routes = inputs.B.shape[3]
    plan = plan_backward(inputs)
    carry = None if grad_last is None else grad_last.float().clone()
    if plan.num_chunks > 1:
        carry = _chunk_states(inputs, plan, grad_y, inputs.C, initial=grad_last, reverse=True)

    by_route = partial_dtype(inputs.u) if routes > 1 else inputs.u.dtype
    du = torch.empty((b, length, g, e), dtype=by_route, device=saved.device)
    dz = None if inputs.z is None else torch.empty_like(du, dtype=inputs.z.dtype)
    # Partial sums over the channels of a group, for each split; in bfloat16 for such inputs, to reduce memory traffic.
    dB_splits, dC_splits = dB[None], dC[None]
    if plan.splits > 1:
        partial = torch.empty((2, plan.splits, *dB.shape), dtype=partial_dtype(inputs.u), device=saved.device)
        dB_splits, dC_splits = partial
    # A row for each chunk of a sample.
    sizes = [0 if x is None else x.numel() for x in (inputs.A, inputs.D, inputs.bias)]
    sums = torch.empty((b, plan.num_chunks, sum(sizes)), dtype=torch.float32, device=saved.device)
    dA, dD, dbias = (x if size else None for x, size in zip(sums.split(sizes, dim=2), sizes, strict=True))
    with torch.cuda.device_of(inputs.u):
        selective_scan_bwd_kernel[(b * plan.num_chunks * g * plan.splits,)](
            p_dy=grad_y,
            p_u=inputs.u,
            p_delta=inputs.delta,
            p_A=inputs.A,
            p_B=inputs.B,
            p_C=inputs.C,
            p_D=inputs.D,
            p_z=inputs.z,
            p_bias=inputs.bias,
            p_order=inputs.order,
            p_saved=saved,
            p_carry=carry,
            p_du=du,
            p_ddelta=ddelta,
            p_dB=dB_splits,
            p_dC=dC_splits,
            p_dz=dz,
            p_dA=dA,
            p_dD=dD,
            p_dbias=dbias,
            splits=plan.splits,
            s_sums=sums.shape[2],
            **_split_sizes(inputs, plan),
            **_strides("s_dyb s_dyl s_dyg", grad_y),
            **_strides("s_ub s_ul s_um", inputs.u),
            **_strides("s_dub s_dul s_dug", du),
            **_strides("s_zb s_zl s_zm", inputs.z),
            **_strides("s_delta_b s_delta_l s_delta_m s_delta_k", inputs.delta),
            **_strides("s_ddelta_b s_ddelta_l s_ddelta_m s_ddelta_k", ddelta),
            **_strides("s_Bb s_Bl s_Bm s_Bk", inputs.B),
            **_strides("s_Cb s_Cl s_Cm s_Ck", inputs.C),
            **_strides("s_dB_split s_dBb s_dBl s_dBm s_dBk", dB_splits),
            ROUTES=routes,
            SOFTPLUS=inputs.softplus,
            BLOCKS=-(-e // (BLOCK_CHANNELS * plan.splits)),
            **plan.tile,
            **_OPTIONS,
        )
    if plan.splits > 1:
        for grad, by_split in ((dB, dB_splits), (dC, dC_splits)):
            if grad.dtype == by_split.dtype:
                torch.sum(by_split, 0, out=grad)
            else:
                grad.copy_(by_split.sum(0))
    # Over chunks first: in a small scan, one sum over all rows would be long, with few columns in parallel.
    by_sample = sums.sum(1) if plan.num_chunks > 1 else sums[:, 0]
    return Gradients(du, dz, by_sample.sum(0))


def _chunk_states(inputs: Inputs, plan: Plan, x: Tensor, B: Tensor, *, initial: Tensor | None, reverse: bool) -> Tensor:
    """The state, or in reverse the gradient, that enters each chunk, (b, chunks, g, n, e); `initial` enters the first
    chunk in the direction of the scan."""
    b, _, g, e, n = _sizes(inputs)
    z = inputs.z if reverse else None
    ends = torch.empty((b, plan.num_chunks, g, n, e), dtype=torch.float32, device=x.device)
    sums = ends.new_empty((b, plan.num_chunks, g, e))
    with torch.cuda.device_of(x):
        # No chunk follows the last one.
        selective_scan_fwd_chunk_kernel[(b * (plan.num_chunks - 1) * g * -(-e // BLOCK_CHANNELS),)](
            p_x=x,
            p_delta=inputs.delta,
            p_A=inputs.A,
            p_B=B,
            p_z=z,
            p_bias=inputs.bias,
            p_order=inputs.order,
            p_end=ends,
            p_sum=sums,
            **_split_sizes(inputs, plan),
            **_strides("s_xb s_xl s_xg", x),
            **_strides("s_zb s_zl s_zm", z),
            **_strides("s_delta_b s_delta_l s_delta_m s_delta_k", inputs.delta),
            **_strides("s_Bb s_Bl s_Bm s_Bk", B),
            ROUTES=inputs.B.shape[3],
            SOFTPLUS=inputs.softplus,
            REVERSE=reverse,
            **plan.tile,
            **_OPTIONS,
        )
        selective_scan_fwd_carry_kernel[(-(-g * e * n // _CARRY_BLOCK), b)](
            p_end=ends,
            p_sum=sums,
            p_A=inputs.A,
            p_initial=initial,
            num_chunks=plan.num_chunks,
            size=g * e * n,
            channels=e,
            states=n,
            REVERSE=reverse,
            BLOCK=_CARRY_BLOCK,
            **_OPTIONS,
        )
    return ends


def _sizes(inputs: Inputs) -> tuple[int, int, int, int, int]:
    b, length = inputs.u.shape[:2]
    g, n, e = inputs.A.shape
    return b, length, g, e, n


def _split_sizes(inputs: Inputs, plan: Plan) -> dict[str, int]:
    _, length, g, e, n = _sizes(inputs)
    chunks = {"chunk": plan.chunk, "num_chunks": plan.num_chunks}
    return {"length": length, **chunks, "groups": g, "channels": e, "states": n}


def _strides(names: str, x: Tensor | None) -> dict[str, int]:
    """Strides of the first axes of x, by the names of the kernel's parameters; 0 if there is no tensor."""
    keys = names.split()
    return dict.fromkeys(keys, 0) if x is None else dict(zip(keys, x.stride(), strict=False))


def _readable(inputs: Inputs) -> Inputs:
    """Inputs that the kernels can load: no float64, contiguous last axes, contiguous parameters."""
    u, delta, B, C = (_unit_last_stride(_not_float64(x)) for x in (inputs.u, inputs.delta, inputs.B, inputs.C))
    z = None if inputs.z is None else _unit_last_stride(_not_float64(inputs.z))
    A = _not_float64(inputs.A).contiguous()
    D, bias = (None if x is None else _not_float64(x).contiguous() for x in (inputs.D, inputs.bias))
    order = None if inputs.order is None else inputs.order.contiguous()
    return Inputs(u, delta, A, B, C, D, z, bias, order, inputs.softplus)


def _not_float64(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.float64 else x


def _unit_last_stride(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
