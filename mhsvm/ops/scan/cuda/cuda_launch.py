"""Launches of the scan kernels: output memory and grids. Letters are those of `mhsvm.ops.scan.inputs`."""

from typing import NamedTuple

import torch
from torch import Tensor

from mhsvm.ops.cuda.kernels import launch
from mhsvm.ops.scan.cuda import cuda_plan as plan
from mhsvm.ops.scan.cuda import parameters
from mhsvm.ops.scan.cuda.cuda_plan import Alignments, Options, Shape, Types
from mhsvm.ops.scan.inputs import Gradients, Inputs, partial_dtype

_MOST_ROW_BYTES = 2**31 - 1


class _Call(NamedTuple):
    """A scan's inputs as the kernels read them, and the properties that its launches share."""

    inputs: Inputs
    shape: Shape
    types: Types
    alignments: Alignments
    options: Options

    def variant(self, source: str, layout: plan.Layout, **options: bool):
        shape = self.shape.e, self.shape.n
        return plan.variant(source, shape, layout, self.types, self.alignments, self.options._replace(**options))


def forward(inputs: Inputs, y: Tensor, *, save: bool) -> tuple[Tensor, Tensor]:
    """Write y (b, l, g, e); return the last state (b, g, n, e) and the saved states, or none."""
    call = _prepare(inputs, y, None)
    x, (b, length, g, e, n) = call.inputs, call.shape
    layout = plan.forward_layout(call.shape, gate=x.z is not None, save=save, two_bytes=x.u.element_size() == 2)
    chunk, chunks = plan.split_forward(call.shape, layout)
    last = torch.empty((b, g, e, n), dtype=torch.float32, device=y.device)
    saved = torch.empty(plan.saved_shape(b, length if save else 0, g, n, e), dtype=call.types.saved, device=y.device)
    ends, sums = _chunk_ends(call, x.u, x.B, chunk, chunks, reverse=False) if chunks > 1 else (None, None)
    p = parameters.Forward()
    _set_inputs(p, x)
    _set_split(p, call, layout, chunk, chunks)
    p.C, p.D = x.C.data_ptr(), _pointer(x.D)
    p.s_Cb, p.s_Cl, p.s_Ch, p.s_Ck = _strides(x.C)
    p.u, p.ends, p.sums, p.y = x.u.data_ptr(), _pointer(ends), _pointer(sums), y.data_ptr()
    p.s_ub, p.s_ul, p.s_uh = _strides(x.u)
    p.s_yb, p.s_yl, p.s_yg = _strides(y)
    p.saved, p.last = saved.data_ptr(), last.data_ptr()
    launch(call.variant("forward", layout, save=save), b * chunks * g * p.parts, p, y.device)
    return last.mT, saved


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
    grad_y = _readable(grad_y)
    grad_last = None if grad_last is None else grad_last.float().contiguous()
    call = _prepare(inputs, grad_y, projections)
    x, (b, length, g, e, n), device = call.inputs, call.shape, saved.device
    targets = tuple(
        out if out.dtype == call.types.x else torch.empty_like(out, dtype=call.types.x) for out in projections
    )
    ddelta, dB, dC = targets
    if dB.stride() != dC.stride():
        dC = torch.empty_strided(dB.shape, dB.stride(), dtype=dB.dtype, device=device)
        targets = ddelta, dB, dC

    layout = plan.backward_layout(call.shape, gate=x.z is not None)
    chunk, chunks = plan.split_backward(call.shape, layout)
    ends, sums = _chunk_ends(call, grad_y, x.C, chunk, chunks, reverse=True) if chunks > 1 else (None, None)
    du = torch.empty((b, length, g, e), dtype=call.types.u_grad, device=device)
    dz = None if x.z is None else torch.empty((b, length, g, e), dtype=x.z.dtype, device=device)
    parts = -(-e // layout.block_channels)
    by_part = None
    if parts > 1:
        by_part = torch.empty((2, parts, *dB.shape), dtype=call.types.bc_grad, device=device)
    else:
        call = call._replace(types=call.types._replace(bc_grad=call.types.x))
    vector = n % 4 == 0 and all(_alignment(out) >= 4 * out.element_size() for out in (dB, dC))
    sizes = [0 if t is None else t.numel() for t in (x.A, x.D, x.bias)]
    rows = torch.empty((b * chunks, sum(sizes)), dtype=torch.float32, device=device)

    p = parameters.Backward()
    _set_inputs(p, x)
    _set_split(p, call, layout, chunk, chunks)
    p.C, p.D = x.C.data_ptr(), _pointer(x.D)
    p.s_Cb, p.s_Cl, p.s_Ch, p.s_Ck = _strides(x.C)
    p.dy, p.u, p.saved, p.initial = grad_y.data_ptr(), x.u.data_ptr(), saved.data_ptr(), _pointer(grad_last)
    p.ends, p.sums = _pointer(ends), _pointer(sums)
    p.s_dyb, p.s_dyl, p.s_dyg = _strides(grad_y)
    p.s_ub, p.s_ul, p.s_uh = _strides(x.u)
    p.du, p.ddelta, p.dz = du.data_ptr(), ddelta.data_ptr(), _pointer(dz)
    p.s_dub, p.s_dul, p.s_dug = _strides(du)
    p.s_ddeltab, p.s_ddeltal, p.s_ddeltah, p.s_ddeltak = _strides(ddelta)
    if dz is not None:
        p.s_dzb, p.s_dzl, p.s_dzg = _strides(dz)
    if by_part is None:
        p.dB, p.dC = dB.data_ptr(), dC.data_ptr()
        p.s_dBb, p.s_dBl, p.s_dBh, p.s_dBk = _strides(dB)
    else:
        p.dB, p.dC = by_part[0].data_ptr(), by_part[1].data_ptr()
        p.s_dBpart = by_part.stride(1)
        p.s_dBb, p.s_dBl, p.s_dBh, p.s_dBk = _strides(by_part[0, 0])
    p.dA, p.s_row = rows.data_ptr(), rows.shape[1]
    p.dD = None if x.D is None else rows.data_ptr() + 4 * sizes[0]
    p.dbias = None if x.bias is None else rows.data_ptr() + 4 * (sizes[0] + sizes[1])
    launch(call.variant("backward", layout, vector_bc=vector), b * chunks * g * parts, p, device)

    if by_part is not None:
        _sum_parts(call, by_part, dB, dC, vector=vector)
    for out, target in zip(projections, targets, strict=True):
        if out is not target:
            out.copy_(target)
    return Gradients(du, dz, _sum_rows(call, rows))


def _prepare(inputs: Inputs, y: Tensor, gradients: tuple[Tensor, ...] | None) -> _Call:
    u, z = _readable(inputs.u), None if inputs.z is None else _readable(inputs.z)
    delta, B, C = (_readable(x) for x in (inputs.delta, inputs.B, inputs.C))
    if not delta.dtype == B.dtype == C.dtype:
        dtype = torch.promote_types(torch.promote_types(delta.dtype, B.dtype), C.dtype)
        delta, B, C = (x.to(dtype) for x in (delta, B, C))
    A = inputs.A.float().contiguous()
    D, bias = (None if x is None else x.float().contiguous() for x in (inputs.D, inputs.bias))
    order = None if inputs.order is None else inputs.order.to(torch.int64).contiguous()
    inputs = Inputs(u, delta, A, B, C, D, z, bias, order, inputs.softplus)
    g, n, e = inputs.A.shape
    partial = partial_dtype(u)
    types = Types(
        u=u.dtype,
        x=delta.dtype,
        y=y.dtype,
        z=torch.float32 if z is None else z.dtype,
        saved=partial,
        bc_grad=partial,
        u_grad=u.dtype if B.shape[3] == 1 else partial,
    )
    alignments = Alignments(
        _alignment(u),
        _alignment(delta),
        min(_alignment(B), _alignment(C)),
        _alignment(y) if gradients is not None else 16,
        16 if z is None else _alignment(z),
    )
    options = Options(softplus=inputs.softplus, ordered=order is not None, gate=z is not None)
    return _Call(inputs, Shape(u.shape[0], u.shape[1], g, e, n), types, alignments, options)


def _chunk_ends(call: _Call, x: Tensor, B: Tensor, chunk: int, chunks: int, *, reverse: bool) -> tuple[Tensor, Tensor]:
    """The state, or in reverse the gradient, at the end of each chunk, and the chunk's sum of delta."""
    (b, _, g, e, n), layout = call.shape, plan.chunk_layout(call.shape.e, call.shape.n)
    ends = torch.empty((b, chunks, g, e, 16 * plan.state_blocks(n)), dtype=torch.float32, device=x.device)
    sums = torch.empty((b, chunks, g, e), dtype=torch.float32, device=x.device)
    p = parameters.Chunk()
    _set_inputs(p, call.inputs._replace(B=B))
    _set_split(p, call, layout, chunk, chunks)
    p.x, p.ends, p.sums = x.data_ptr(), ends.data_ptr(), sums.data_ptr()
    p.s_xb, p.s_xl, p.s_xg = _strides(x)
    # nothing follows the last chunk
    launch(call.variant("chunk", layout, reverse=reverse), b * (chunks - 1) * g * p.parts, p, x.device)
    return ends, sums


def _sum_rows(call: _Call, rows: Tensor) -> Tensor:
    if rows.shape[0] == 1:
        return rows[0]
    total = torch.empty(rows.shape[1], dtype=torch.float32, device=rows.device)
    p = parameters.SumRows(rows.data_ptr(), total.data_ptr(), rows.shape[1], *rows.shape)
    variant = plan.sum_variant("scan_sum_rows", call.types, vector_bc=True)
    launch(variant, -(-rows.shape[1] // 32), p, rows.device)
    return total


def _sum_parts(call: _Call, by_part: Tensor, dB: Tensor, dC: Tensor, *, vector: bool) -> None:
    _, length, heads, routes, n = dB.shape
    p = parameters.SumParts(by_part.data_ptr(), dB.data_ptr(), dC.data_ptr(), dB.numel())
    p.s_Bb, p.s_Bl, p.s_Bh, p.s_Bk = dB.stride()[:4]
    p.s_Cb, p.s_Cl, p.s_Ch, p.s_Ck = dC.stride()[:4]
    p.parts, p.length, p.heads, p.routes, p.n = by_part.shape[1], length, heads, routes, n
    variant = plan.sum_variant("scan_sum_parts", call.types, vector_bc=vector)
    launch(variant, -(-2 * dB.numel() // (1024 if vector else 256)), p, dB.device)


def _set_inputs(p, x: Inputs) -> None:
    """Set the arguments that all kernels of the scan have."""
    p.delta, p.A, p.B = x.delta.data_ptr(), x.A.data_ptr(), x.B.data_ptr()
    p.z, p.bias, p.order = _pointer(x.z), _pointer(x.bias), _pointer(x.order)
    p.s_deltab, p.s_deltal, p.s_deltah, p.s_deltak = _strides(x.delta)
    p.s_Bb, p.s_Bl, p.s_Bh, p.s_Bk = _strides(x.B)
    if x.z is not None:
        p.s_zb, p.s_zl, p.s_zg = _strides(x.z)
    p.routes = x.B.shape[3]


def _set_split(p, call: _Call, layout: plan.Layout, chunk: int, chunks: int) -> None:
    _, p.length, p.groups, p.e, p.n = call.shape
    p.chunk, p.chunks, p.parts = chunk, chunks, -(-p.e // layout.block_channels)


def _strides(x: Tensor) -> tuple[int, ...]:
    """Strides in numbers, but that of a step in bytes; without the last axis."""
    strides = x.stride()
    return strides[0], strides[1] * x.element_size(), *strides[2:-1]


def _alignment(x: Tensor) -> int:
    """Bytes by which every row of the last axis is aligned, at most 16."""
    size, bits = x.element_size(), x.data_ptr() | 16
    for stride, num in zip(x.stride()[:-1], x.shape, strict=False):
        if num > 1:
            bits |= stride * size
    return bits & -bits


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _readable(x: Tensor) -> Tensor:
    """x with a type and memory order that the kernels read."""
    x = x.float() if x.dtype == torch.float64 else x
    near = x.stride(1) * x.element_size() <= _MOST_ROW_BYTES
    return x if x.stride(-1) == 1 and near else x.contiguous()
