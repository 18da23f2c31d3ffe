"""The kernels as operators of torch, with gradients, known to its compiler.

Shapes: u, z (b, m, l, d); delta (b, m, l, d), or else projected (b, m, k, l, r) and weight (m, k, d, r); bias, D
(m, k, d); A (m, k, d, n); B, C (b, m, k, l, n); order (m, k, l), int64. y (b, m, k, l, d), last state (b, m, k, d, n).
All are float32. Starts, the states before each tile, are kept for the backward pass alone.
"""

from typing import List  # noqa: UP035

import torch
from torch import Tensor

from mhsvm.ops.scan.cpu.layout import BLOCKS, LANES, num_parts, num_tiles


def scan(
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
    """y and the last state."""
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
    from mhsvm.ops.scan.cpu import launch

    outputs = _empty_outputs(u, delta, projected, weight, bias, A, B, C, D, z, order, use_softplus, keep)
    launch.forward(u, delta, projected, weight, bias, A, B, C, D, z, order, use_softplus, *outputs)
    return outputs


@_forward.register_fake
def _empty_outputs(u, delta, projected, weight, bias, A, B, C, D, z, order, use_softplus, keep):
    b, m, length, d = u.shape
    _, k, _, n = A.shape
    # A plain sequence comes out in the layout in which it came in.
    y = u.new_empty(b, m, k, length, d) if delta is None else torch.empty_like(u).unsqueeze(2)
    last_state = u.new_empty(b, m, k, d, n)
    starts = (b, m, k, num_parts(d), num_tiles(length), BLOCKS, n, LANES)
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
    from mhsvm.ops.scan.cpu import launch

    return launch.backward(
        u, delta, projected, weight, bias, A, B, C, D, z, order, use_softplus, starts, grad_y, grad_last_state
    )


@_backward.register_fake
def _empty_gradients(
    u, delta, projected, weight, bias, A, B, C, D, z, order, use_softplus, starts, grad_y, grad_last_state
):
    def by_cell(x):
        return None if x is None else x.new_empty(x.permute(0, 3, 1, 2, 4).shape).permute(0, 2, 3, 1, 4)

    def contiguous(x):
        return None if x is None else x.new_empty(x.shape)

    def like(x):
        return None if x is None else torch.empty_like(x)

    gradients = (
        like(u), like(delta), by_cell(projected), contiguous(weight), contiguous(bias), contiguous(A),
        by_cell(B), by_cell(C), contiguous(D), like(z),
    )  # fmt: skip
    return [x for x in gradients if x is not None]


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
