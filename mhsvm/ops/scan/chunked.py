"""The selective scan in vectorized plain torch: runs and exports anywhere.

Time is split into chunks, which bound the memory, and a chunk into blocks, about as many as a block has steps. All
blocks of a chunk advance at once. They first advance from a state of zero, which gives the contribution of each block
to the states between blocks. Then they advance again from these states. The decay over a block is exp(A * sum of
delta), never a product of rounded exponentials, and nothing is divided by a decay: delta * A = -50 is as exact as
thousands of steps of -1e-6.

Letters are those of `mhsvm.ops`. Time is the first axis, so that one step of all blocks is a few long contiguous runs.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhsvm.ops.scan.reference import finish_delta, skip_and_gate, state_dtype, without_autocast

# Numbers in the states of a chunk: few enough for the caches of a CPU; a GPU needs few and large launches.
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
    """`mhsvm.ops.scan.selective_scan.sequence_scan`, chunk by chunk.

    Temporary memory is about five times (chunk_size, b, d, n), forward and backward. By default the length of a chunk
    keeps that near a fixed amount for any b and d; it is at least a few steps.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1 step, got {chunk_size}")
    out_dtype, dtype = u.dtype, state_dtype(u)
    with without_autocast(u):
        u, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
        D, z, delta_bias = (None if x is None else x.to(dtype) for x in (D, z, delta_bias))
        # Time first in memory, as in the scan: torch's compiler fails on the gradient of softplus if its two inputs
        # differ in their memory order.
        delta = delta.transpose(0, 1).contiguous().transpose(0, 1)
        delta = finish_delta(delta, delta_bias, delta_softplus)
        g = B.shape[2]
        y, last_state = _ChunkedScan.apply(
            delta.transpose(0, 1).unflatten(2, (g, -1)),
            u.transpose(0, 1).unflatten(2, (g, -1)),
            A.unflatten(0, (g, -1)),
            B.transpose(0, 1),
            C.transpose(0, 1),
            chunk_size or _default_chunk_size(u, A),
        )
        y = skip_and_gate(y.flatten(2).transpose(0, 1), u, D, z).to(out_dtype)
    return (y, last_state.flatten(1, 2)) if return_last_state else y


def _default_chunk_size(u: Tensor, A: Tensor) -> int:
    numbers = _CPU_CHUNK_NUMBERS if u.device.type == "cpu" else _GPU_CHUNK_NUMBERS
    return max(_MIN_CHUNK_SIZE, numbers // max(1, u.shape[0] * A.numel()))


class _ChunkedScan(torch.autograd.Function):
    """delta, u (l, b, g, e), A (g, e, n), B, C (l, b, g, n) -> y (l, b, g, e), last state (b, g, e, n).

    Saves its inputs and the state before each chunk; backward computes the states of a chunk again.
    """

    @staticmethod
    def forward(ctx, delta, u, A, B, C, chunk_size):
        length = len(u)
        block = math.isqrt(min(chunk_size, length) - 1) + 1
        padding = -length % block
        chunk = block * (min(chunk_size, length + padding) // block)
        ctx.length, ctx.block, ctx.chunk = length, block, chunk
        # delta = 0 leaves the state as it is. The reverse scan reads one step more than the blocks have.
        delta = _pad_time(delta, padding + 1)
        u, B, C = (_pad_time(x, padding) for x in (u, B, C))

        state = u.new_zeros(*u.shape[1:], A.shape[-1])  # (b, g, e, n)
        starts, outputs = [], []
        for start in range(0, len(u), chunk):
            at = slice(start, min(start + chunk, len(u)))
            states = _outer(delta[at] * u[at], B[at])  # (t, b, g, e, n)
            starts.append(state)
            state = _recur(states, _decay(delta[at], A), _block_decay(delta[at], A, block), state)
            outputs.append(_contract_state(states, C[at]))
        ctx.save_for_backward(delta, u, A, B, C, torch.stack(starts))
        return torch.cat(outputs)[:length], state

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y, grad_state):
        delta, u, A, B, C, starts = ctx.saved_tensors
        grad_y = _pad_time(grad_y, len(u) - len(grad_y))
        grad_delta, grad_u = torch.empty_like(u), torch.empty_like(u)
        grad_A, grad_B, grad_C = torch.zeros_like(A), torch.empty_like(B), torch.empty_like(C)
        with torch.autocast(u.device.type, enabled=False):
            for i in reversed(range(len(starts))):
                at = slice(i * ctx.chunk, min((i + 1) * ctx.chunk, len(u)))
                after = slice(at.start + 1, at.stop + 1)
                decay = _decay(delta[at.start : at.stop + 1], A)
                added = delta[at] * u[at]
                states = torch.empty_like(decay)
                states[0] = starts[i]
                _outer(added, B[at], out=states[1:])
                _recur(states[1:], decay[:-1], _block_decay(delta[at], A, ctx.block), starts[i])
                grad_states = _outer(grad_y[at], C[at])
                decay_after = _block_decay(delta[after], A, ctx.block)
                grad_state = _recur(grad_states, decay[1:], decay_after, grad_state, reverse=True)
                grad_C[at] = _contract_channels(states[1:], grad_y[at])
                grad_B[at] = _contract_channels(grad_states, added)
                grad_added = _contract_state(grad_states, B[at])
                # The gradient of the exponent delta * A, from s_t = exp(delta_t A) s_{t-1} + ...
                grad_exponent = decay[:-1].mul_(grad_states).mul_(states[:-1])
                grad_A += (grad_exponent * delta[at].unsqueeze(-1)).sum((0, 1))
                grad_delta[at] = grad_exponent.mul_(A).sum(-1) + grad_added * u[at]
                grad_u[at] = grad_added * delta[at]
        grad_delta, grad_u, grad_B, grad_C = (x[: ctx.length] for x in (grad_delta, grad_u, grad_B, grad_C))
        return grad_delta, grad_u, grad_A, grad_B, grad_C, None


def _recur(values: Tensor, decay: Tensor, block_decay: Tensor, carry: Tensor, reverse: bool = False) -> Tensor:
    """Turn the inputs of the steps, (t, ...), into states in place: v_i += decay_i * v_{i-1}, v_{-1} = carry.

    In reverse v_i += decay_i * v_{i+1}, from the last step to the first. Returns the carry of the next chunk.
    """
    num_blocks = len(block_decay)
    values, decay = values.unflatten(0, (num_blocks, -1)), decay.unflatten(0, (num_blocks, -1))
    blocks, steps = list(range(num_blocks)), list(range(values.shape[1]))
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
    """x with `steps` zero steps after it, contiguous."""
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, steps)).contiguous()


def _decay(delta: Tensor, A: Tensor) -> Tensor:
    return (delta.unsqueeze(-1) * A).exp_()


def _block_decay(delta: Tensor, A: Tensor, block: int) -> Tensor:
    """The decay over each block of `block` steps, (blocks, b, g, e, n)."""
    return _decay(delta.unflatten(0, (-1, block)).sum(1), A)


def _outer(x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """(t, b, g, e) and (t, b, g, n) -> (t, b, g, e, n)."""
    return torch.mul(x.unsqueeze(-1), y.unsqueeze(-2), out=out)


def _contract_state(x: Tensor, y: Tensor) -> Tensor:
    """(t, b, g, e, n) and (t, b, g, n) -> (t, b, g, e)."""
    return torch.matmul(x, y.unsqueeze(-1)).squeeze(-1)


def _contract_channels(x: Tensor, y: Tensor) -> Tensor:
    """(t, b, g, e, n) and (t, b, g, e) -> (t, b, g, n)."""
    return (x * y.unsqueeze(-1)).sum(-2)
