"""The selective scan in few plain operations, for programs that other runtimes execute: the backend "portable".

`torch.export` records every step of a loop, so the loops are short and no size but the batch is unknown. Time is split
into blocks of about 8 steps. All blocks advance at once, first from a state of zero. Their last states are a sequence
with an eighth of the steps, which is scanned in the same way and gives the states before the blocks; from these all
blocks advance again. That is about 2.3 passes over the states, and 100 operations for 1,000 steps. The decay over a
block is exp(A * sum of delta), never a product of rounded exponentials.

Letters are those of `mhsvm.ops`; t steps of s blocks are (t, s*b, …). A sequence of several groups has the channels
(g, e), one of a single group has (d), so that no tensor has more than five dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.scan.reference import finish_delta, skip_and_gate, state_dtype, without_autocast

# The steps of a block, if they divide the length; a sequence of up to twice as many is one block.
_STEPS = 8


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
    """`mhsvm.ops.scan.selective_scan.sequence_scan`, block by block.

    Temporary memory is about four times (l, b, d, n); gradients keep all of it.
    """
    out_dtype, dtype = u.dtype, state_dtype(u)
    with without_autocast(u):
        u, delta, A, B, C = (_cast(x, dtype) for x in (u, delta, A, B, C))
        D, z, delta_bias = (None if x is None else _cast(x, dtype) for x in (D, z, delta_bias))
        length, groups = u.shape[1], B.shape[2]
        delta = finish_delta(delta, delta_bias, delta_softplus)
        steps = _block_steps(length)
        blocked = [_blocks(_padded(x.transpose(0, 1), steps), steps) for x in (delta, delta * u, B, C)]
        delta_steps, added, B, C = blocked
        if groups > 1:
            delta_steps, added = (x.unflatten(-1, (groups, -1)) for x in (delta_steps, added))
            A, B, C = A.unflatten(0, (groups, -1)), B.unsqueeze(-2), C.unsqueeze(-2)
        states = _states(delta_steps, added.unsqueeze(-1) * B, A, -(-length // steps))
        # Not a product of matrices: that has a gradient that autocast would round.
        y = (states * C).sum(-1)  # (t, s*b, d), or (t, s*b, g, e)
        y = _sequence(y.flatten(2), -(-length // steps))[:length].transpose(0, 1)
        y = _cast(skip_and_gate(y, u, D, z), out_dtype)
        if not return_last_state:
            return y
        last_state = states[-1].unflatten(0, (-1, u.shape[0]))[-1]
    return y, last_state.flatten(1, -2)


def _block_steps(length: int) -> int:
    """The steps of a block: a divisor of the length if one is near `_STEPS`, else `_STEPS`."""
    if length <= 2 * _STEPS:
        return length
    divisors = [t for t in range(_STEPS // 2, 2 * _STEPS + 1) if length % t == 0]
    return min(divisors, key=lambda t: abs(t - _STEPS), default=_STEPS)


def _padded(x: Tensor, steps: int) -> Tensor:
    """(l, b, …) with zeros after it, up to a multiple of the steps; a delta of 0 leaves the state as it is."""
    missing = -x.shape[0] % steps
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, missing)) if missing else x


def _blocks(x: Tensor, steps: int) -> Tensor:
    """Steps of a sequence (s*t, b, …) -> steps of its blocks (t, s*b, …)."""
    return x if x.shape[0] == steps else x.unflatten(0, (-1, steps)).transpose(0, 1).flatten(1, 2)


def _sequence(x: Tensor, blocks: int) -> Tensor:
    """Steps of blocks (t, s*b, …) -> steps of a sequence (s*t, b, …)."""
    return x if blocks == 1 else x.unflatten(1, (blocks, -1)).transpose(0, 1).flatten(0, 1)


def _states(delta: Tensor, added: Tensor, A: Tensor, blocks: int) -> Tensor:
    """The states after each step, from a state of zero before the first block.

    delta (t, s*b, d), or (t, s*b, g, e); A (d, n), or (g, e, n); added like delta, with n -> like added.
    """
    # with an axis for the step, which would cost an operation to remove
    decays, steps = _decay(delta, A).split(1), added.split(1)
    state = None
    if blocks > 1:
        end = steps[0]
        for decay, step in zip(decays[1:], steps[1:], strict=True):
            end = decay * end + step
        total, end = (x.unflatten(1, (blocks, -1)).squeeze(0) for x in (delta.sum(0, keepdim=True), end))
        state = _states_before(total, end, A)
    states = []
    for decay, step in zip(decays, steps, strict=True):
        state = step if state is None else decay * state + step
        states.append(state)
    return torch.cat(states)


def _states_before(delta: Tensor, ends: Tensor, A: Tensor) -> Tensor:
    """The states before all blocks, (1, s*b, …), from their sums of delta and their last states, (s, b, …)."""
    length = delta.shape[0]
    steps = _block_steps(length)
    blocks = -(-length // steps)
    delta, ends = (_blocks(_padded(x, steps), steps) for x in (delta, ends))
    after = _sequence(_states(delta, ends, A, blocks), blocks)
    return torch.cat((torch.zeros_like(after[:1]), after[: length - 1])).flatten(0, 1).unsqueeze(0)


def _decay(delta: Tensor, A: Tensor) -> Tensor:
    return torch.exp(delta.unsqueeze(-1) * A)


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in a type; torch records even a cast that changes nothing."""
    return x if x.dtype == dtype else x.to(dtype)
