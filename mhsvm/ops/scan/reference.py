"""The reference of the selective scan, one step after the other: all other backends are tested against it.

Letters are those of `mhsvm.ops`.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor


def state_dtype(u: Tensor) -> torch.dtype:
    """The type of the state: float64 for float64 input, else float32."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """In the block, operations on the device of x are not cast; nothing is recorded where nothing would be."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def finish_delta(delta: Tensor, delta_bias: Tensor | None, delta_softplus: bool) -> Tensor:
    """The delta that multiplies A: with its bias, and after softplus if `delta_softplus`, (..., d)."""
    if delta_bias is not None:
        delta = delta + delta_bias
    return F.softplus(delta, threshold=20.0) if delta_softplus else delta


def skip_and_gate(y: Tensor, u: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """Add D * u to the outputs of the scan, then multiply by the gate silu(z), (b, l, d)."""
    if D is not None:
        y = y + D * u
    return y if z is None else y * F.silu(z)


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
    """`mhsvm.ops.scan.selective_scan.sequence_scan`, one step after the other."""
    out_dtype, dtype = u.dtype, state_dtype(u)
    with without_autocast(u):
        u, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
        D, z, delta_bias = (None if x is None else x.to(dtype) for x in (D, z, delta_bias))
        channels_per_group = u.shape[2] // B.shape[2]
        B = B.repeat_interleave(channels_per_group, dim=2)  # (b, l, d, n)
        C = C.repeat_interleave(channels_per_group, dim=2)
        delta = finish_delta(delta, delta_bias, delta_softplus)

        state = u.new_zeros(u.shape[0], u.shape[2], A.shape[1])  # (b, d, n)
        outputs = []
        # Not by index: the gradient of an indexed step is as large as the sequence, so backward would be quadratic in
        # l.
        for delta_t, u_t, B_t, C_t in zip(*(x.unbind(1) for x in (delta, u, B, C)), strict=True):
            delta_t = delta_t[..., None]
            state = torch.exp(delta_t * A) * state + delta_t * B_t * u_t[..., None]
            outputs.append((state * C_t).sum(-1))
        y = skip_and_gate(torch.stack(outputs, dim=1), u, D, z).to(out_dtype)
    return (y, state) if return_last_state else y
