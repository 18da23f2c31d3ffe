"""The backend "cpu": what torch sees of the compiled kernels.

b batch, m heads, k routes, l cells, d channels of a head, n state size, r rank of the step size. A plain scan of g
groups is one of g heads with one route, whose order is the sequence itself.
"""

import importlib.util

import torch
from torch import Tensor

from mhsvm.ops.scan.cpu.autograd import scan

_NUMBA_IS_MISSING = importlib.util.find_spec("numba") is None


def unavailable_reason() -> str | None:
    return "numba is not installed: pip install numba" if _NUMBA_IS_MISSING else None


def unsupported_reason(u: Tensor) -> str | None:
    """Why it cannot take an operation's first argument, or None if it can."""
    if u.device.type != "cpu":
        return f"it scans on the CPU, and u is on {u.device}"
    if u.dtype == torch.float64:
        return "it keeps the state in float32, and u is float64"
    return None


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
    """`mhsvm.ops.selective_scan`; B and C are (b, g, n, l). Any layout is read in place."""
    out_dtype = u.dtype
    groups, length = B.shape[1], u.shape[2]
    u, delta, z = (None if x is None else x.float().unflatten(1, (groups, -1)).mT for x in (u, delta, z))
    B, C = (x.float().mT.unsqueeze(2) for x in (B, C))
    A = A.float().unflatten(0, (groups, 1, -1))
    D, delta_bias = (None if x is None else x.float().reshape(A.shape[:3]) for x in (D, delta_bias))
    order = torch.arange(length).expand(groups, 1, -1)
    y, last_state = scan(u, delta, None, None, delta_bias, A, B, C, D, z, order, delta_softplus)
    y = y.squeeze(2).mT.flatten(1, 2).to(out_dtype)
    return (y, last_state.flatten(1, 3)) if return_last_state else y


def route_scan(
    u: Tensor,
    x_dbl: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    order: Tensor,
    inverse: Tensor,
) -> Tensor:
    """`mhsvm.ops.route_scan`, following the routes by index."""
    if dt_weight is None:
        # The kernels take the step size along routes in its low-rank form alone, which is less to read.
        dt_weight = torch.eye(u.shape[3]).expand(*A.shape[:2], -1, -1)
    n, r = A.shape[3], dt_weight.shape[3]
    projected, B, C = x_dbl.float().permute(0, 2, 3, 1, 4).split((r, n, n), dim=-1)
    weight, bias = dt_weight.float(), dt_bias.float()
    y, _ = scan(
        u.float().transpose(1, 2), None, projected, weight, bias, A.float(), B, C, D.float(), None, order.long(), True
    )
    return y
