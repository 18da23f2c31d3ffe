"""The selective scan in vectorised plain torch: runs and exports anywhere.

Time is cut into chunks, which bound the memory, and a chunk into blocks of about as many steps as there are
blocks. All blocks take their steps at once, first from a state of zero to find what each adds, then, the
states between blocks being known, once more for the states inside. The decay over a block is
exp(A * sum of dt), never a product of rounded exponentials, and nothing is divided by a decay: steps of
dt * A = -50 and thousands of steps of -1e-6 are both exact to rounding.

b batch, l steps, g groups, e = d / g channels of a group, n state size, t steps of a chunk, k blocks of r
steps (t = k * r). Time comes first, so that a step of all blocks is a few long contiguous runs.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhsvm.ops.scan.reference import skip_and_gate, state_dtype, step_size

# A chunk's states, in numbers: what a CPU's caches serve well; a GPU wants few and large launches.
_CPU_CHUNK_NUMBERS = 2**21
_GPU_CHUNK_NUMBERS = 2**26
_MIN_CHUNK_SIZE = 16


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
    *,
    chunk_size: int | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`mhsvm.ops.selective_scan`, chunk by chunk; B and C are (b, g, n, l).

    Temporary memory is about five times (chunk_size, b, d, n), forward and backward. By default the chunk
    is as long as keeps that near a fixed amount, whatever b and d, but at least a few steps.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1 step, got {chunk_size}")
    out_dtype, dtype = u.dtype, state_dtype(u)
    with torch.autocast(u.device.type, enabled=False):
        u, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
        D, z, delta_bias = (None if x is None else x.to(dtype) for x in (D, z, delta_bias))
        # In the scan's own layout: torch's compiler expects another one of softplus's gradient than it gets, if its two
        # inputs differ in theirs.
        delta = delta.permute(2, 0, 1).contiguous().permute(1, 2, 0)
        dt = step_size(delta, delta_bias, delta_softplus)
        g = B.shape[1]
        y, last_state = _ChunkedScan.apply(
            dt.permute(2, 0, 1).unflatten(2, (g, -1)),
            u.permute(2, 0, 1).unflatten(2, (g, -1)),
            A.unflatten(0, (g, -1)),
            B.permute(3, 0, 1, 2),
            C.permute(3, 0, 1, 2),
            chunk_size or _default_chunk_size(u, A),
        )
        y = skip_and_gate(y.flatten(2).permute(1, 2, 0), u, D, z).to(out_dtype)
    return (y, last_state.flatten(1, 2)) if return_last_state else y


def _default_chunk_size(u: Tensor, A: Tensor) -> int:
    numbers = _CPU_CHUNK_NUMBERS if u.device.type == "cpu" else _GPU_CHUNK_NUMBERS
    return max(_MIN_CHUNK_SIZE, numbers // max(1, u.shape[0] * A.numel()))


class _ChunkedScan(torch.autograd.Function):
    """dt, u (l, b, g, e), A (g, e, n), B, C (l, b, g, n) -> y (l, b, g, e), last state (b, g, e, n).

    Keeps its inputs and the state before each chunk; backward computes a chunk's states again.
    """

    @staticmethod
    def forward(ctx, dt, u, A, B, C, chunk_size):
        length = len(u)
        r = math.isqrt(min(chunk_size, length) - 1) + 1
        padding = -length % r
        t = r * (min(chunk_size, length + padding) // r)
        ctx.length, ctx.r, ctx.t = length, r, t
        # Steps of dt = 0 leave the state alone; one more than the blocks need serves the reverse scan.
        dt = _pad_time(dt, padding + 1)
        u, B, C = (_pad_time(x, padding) for x in (u, B, C))

        state = u.new_zeros(*u.shape[1:], A.shape[-1])  # (b, g, e, n)
        starts, outputs = [], []
        for i in range(0, len(u), t):
            dt_t, u_t, B_t, C_t = dt[i : min(i + t, len(u))], u[i : i + t], B[i : i + t], C[i : i + t]
            states = _outer(dt_t * u_t, B_t)  # (t, b, g, e, n)
            starts.append(state)
            state = _recur(states, _decay(dt_t, A), _block_decay(dt_t, A, r), state)
            outputs.append(_contract_state(states, C_t))
        ctx.save_for_backward(dt, u, A, B, C, torch.stack(starts))
        return torch.cat(outputs)[:length], state

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y, grad_state):
        dt, u, A, B, C, starts = ctx.saved_tensors
        t, r = ctx.t, ctx.r
        grad_y = _pad_time(grad_y, len(u) - len(grad_y))
        grad_dt, grad_u = torch.empty_like(u), torch.empty_like(u)
        grad_A, grad_B, grad_C = torch.zeros_like(A), torch.empty_like(B), torch.empty_like(C)
        with torch.autocast(u.device.type, enabled=False):
            for chunk in reversed(range(len(starts))):
                at = slice(chunk * t, min(chunk * t + t, len(u)))
                after = slice(at.start + 1, at.stop + 1)
                decay = _decay(dt[at.start : at.stop + 1], A)
                added = dt[at] * u[at]
                states = torch.empty_like(decay)
                states[0] = starts[chunk]
                _outer(added, B[at], out=states[1:])
                _recur(states[1:], decay[:-1], _block_decay(dt[at], A, r), starts[chunk])
                grad_states = _outer(grad_y[at], C[at])
                grad_state = _recur(grad_states, decay[1:], _block_decay(dt[after], A, r), grad_state, reverse=True)
                grad_C[at] = _contract_channels(states[1:], grad_y[at])
                grad_B[at] = _contract_channels(grad_states, added)
                grad_added = _contract_state(grad_states, B[at])
                # Of the exponent dt * A, from s_t = exp(dt_t A) s_{t-1} + ...
                grad_exponent = decay[:-1].mul_(grad_states).mul_(states[:-1])
                grad_A += (grad_exponent * dt[at].unsqueeze(-1)).sum((0, 1))
                grad_dt[at] = grad_exponent.mul_(A).sum(-1) + grad_added * u[at]
                grad_u[at] = grad_added * dt[at]
        grad_dt, grad_u, grad_B, grad_C = (x[: ctx.length] for x in (grad_dt, grad_u, grad_B, grad_C))
        return grad_dt, grad_u, grad_A, grad_B, grad_C, None


def _recur(values: Tensor, decay: Tensor, block_decay: Tensor, carry: Tensor, reverse: bool = False) -> Tensor:
    """Turn what each step adds, (t, ...), into states in place: v_i += decay_i * v_{i-1}, v_{-1} = carry.

    In reverse v_i += decay_i * v_{i+1}, from the last step to the first. Returns the carry of the next chunk.
    """
    k = len(block_decay)
    values, decay = values.unflatten(0, (k, -1)), decay.unflatten(0, (k, -1))
    blocks, steps = list(range(k)), list(range(values.shape[1]))
    if reverse:
        blocks.reverse()
        steps.reverse()
    ends = values[:, steps[0]]
    for j in steps[1:]:
        ends = torch.addcmul(values[:, j], decay[:, j], ends)
    carries = torch.empty_like(ends)
    for i in blocks:
        carries[i] = carry
        carry = torch.addcmul(ends[i], block_decay[i], carry)
    for j in steps:
        carries = values[:, j].addcmul_(decay[:, j], carries)
    return carry


def _pad_time(x: Tensor, steps: int) -> Tensor:
    """x with `steps` zero steps behind it, contiguous."""
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, steps)).contiguous()


def _decay(dt: Tensor, A: Tensor) -> Tensor:
    return (dt.unsqueeze(-1) * A).exp_()


def _block_decay(dt: Tensor, A: Tensor, r: int) -> Tensor:
    """The decay over each block of r steps, (k, b, g, e, n)."""
    return _decay(dt.unflatten(0, (-1, r)).sum(1), A)


def _outer(x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """(t, b, g, e) and (t, b, g, n) -> (t, b, g, e, n)."""
    return torch.mul(x.unsqueeze(-1), y.unsqueeze(-2), out=out)


def _contract_state(x: Tensor, y: Tensor) -> Tensor:
    """(t, b, g, e, n) and (t, b, g, n) -> (t, b, g, e)."""
    return torch.matmul(x, y.unsqueeze(-1)).squeeze(-1)


def _contract_channels(x: Tensor, y: Tensor) -> Tensor:
    """(t, b, g, e, n) and (t, b, g, e) -> (t, b, g, n)."""
    return (x * y.unsqueeze(-1)).sum(-2)
