"""The selective scan step by step: the truth that every other backend is tested against.

b batch, d channels, l steps, g groups of channels that share B and C, n state size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def state_dtype(u: Tensor) -> torch.dtype:
    """The type in which the state is kept: float64 for float64 input, float32 for everything else."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def step_size(delta: Tensor, delta_bias: Tensor | None, delta_softplus: bool) -> Tensor:
    """The step dt that multiplies A, (b, d, l), from the raw `delta`."""
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    return F.softplus(delta, threshold=20.0) if delta_softplus else delta


def skip_and_gate(y: Tensor, u: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """What stands behind the scan: D * u added, then the gate silu(z), (b, d, l)."""
    if D is not None:
        y = y + D[:, None] * u
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
    """`mhsvm.ops.selective_scan`, one step of l after the other; B and C are (b, g, n, l)."""
    out_dtype, dtype = u.dtype, state_dtype(u)
    with torch.autocast(u.device.type, enabled=False):
        u, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
        D, z, delta_bias = (None if x is None else x.to(dtype) for x in (D, z, delta_bias))
        channels_per_group = u.shape[1] // B.shape[1]
        B = B.repeat_interleave(channels_per_group, dim=1)  # (b, d, n, l)
        C = C.repeat_interleave(channels_per_group, dim=1)
        dt = step_size(delta, delta_bias, delta_softplus)

        state = u.new_zeros(u.shape[0], u.shape[1], A.shape[1])  # (b, d, n)
        outputs = []
        # Not by index: each indexed step's gradient would be as large as the whole, so backward quadratic in l.
        for dt_t, u_t, B_t, C_t in zip(*(x.unbind(-1) for x in (dt, u, B, C)), strict=True):
            dt_t = dt_t[..., None]
            state = torch.exp(dt_t * A) * state + dt_t * B_t * u_t[..., None]
            outputs.append((state * C_t).sum(-1))
        y = skip_and_gate(torch.stack(outputs, dim=-1), u, D, z).to(out_dtype)
    return (y, state) if return_last_state else y
