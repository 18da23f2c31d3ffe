"""The selective scan along the routes of a map, for all heads of a block at once.

b batch, l cells of the map, m heads, k routes of a head, d channels of a head, n state size, r rank of the
step-size projection.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mhsvm.ops import availability
from mhsvm.ops.dispatch import Operation
from mhsvm.ops.scan import chunked, mamba_ssm, reference
from mhsvm.ops.scan.cpu import scan as cpu
from mhsvm.ops.scan.reference import state_dtype
from mhsvm.ops.scan.selective_scan import check_types_and_devices
from mhsvm.ops.scan.triton import autograd as triton


def route_scan(
    u: Tensor,
    x_dbl: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    order: Tensor,
    inverse: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Scan a map along every route of every head; what stands behind it (gate, sum) is the caller's.

    Along route j of head i the cells are taken in the order `order[i, j]`; the step size is
    softplus(dt_weight x_dbl[..., :r] + dt_bias), B and C are the next 2n numbers of x_dbl, and the outputs
    go back to their cells.

    Args:
        u: Values in map order, (b, l, m, d), float16, bfloat16, float32 or float64.
        x_dbl: Step-size part (r), B (n) and C (n) of each cell, head and route, (b, l, m, k, r + 2n).
        dt_weight: Projection of the step-size part, (m, k, d, r); None if that part is the step size itself, r = d.
        dt_bias: Its bias, (m, k, d).
        A: Decay rates, (m, k, d, n), negative.
        D: Weight of the direct path, (m, k, d).
        order: Position on the route -> cell, a permutation of 0..l-1, (m, k, l), int32 or int64.
        inverse: Cell -> position on the route, (m, k, l), int32 or int64.
        backend: As in `selective_scan`.
    Returns:
        y, (b, m, k, l, d), in map order, one output a route. It is float32, or float64 if `u` is: never
        rounded to 16 bits, as a gate over the routes needs their small differences.
    Raises:
        ValueError: Shapes, types or devices disagree, or `backend` is unknown or cannot run here.
    Source: Gu & Dao 2023, arXiv 2312.00752, algorithm 2; routes as in Ji 2024, arXiv 2406.05992.
    """
    _check(u, x_dbl, dt_weight, dt_bias, A, D, order, inverse)
    return ROUTE_SCAN(backend, u, x_dbl, dt_weight, dt_bias, A, D, order, inverse)


def composed_route_scan(
    u: Tensor,
    x_dbl: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    order: Tensor,
    inverse: Tensor,
    *,
    scan: Callable[..., Tensor],
) -> Tensor:
    """`route_scan` as index, scan, index: the reference of the fused ones. `scan` is a backend's selective scan."""
    k, n = A.shape[1], A.shape[3]
    dtype = state_dtype(u)
    # Positions first, like a sequence: (l, m, k). In that order in memory too, as torch's compiler does not foresee the
    # layout of what is indexed otherwise.
    order, inverse = order.permute(2, 0, 1).contiguous(), inverse.permute(2, 0, 1).contiguous()
    with torch.autocast(u.device.type, enabled=False):
        u, x_dbl = u.to(dtype), x_dbl.to(dtype)
        u = _Reorder.apply(u.unsqueeze(3).expand(-1, -1, -1, k, -1), order, inverse)  # (b, l, m, k, d)
        x_dbl = _Reorder.apply(x_dbl, order, inverse)
        step, B, C = x_dbl.split((x_dbl.shape[-1] - 2 * n, n, n), dim=-1)
        delta = step if dt_weight is None else torch.einsum("blmkr,mkdr->blmkd", step, dt_weight.to(dtype))
        y = scan(
            u.flatten(2).mT,
            delta.flatten(2).mT,
            A.flatten(0, 2),
            B.flatten(2, 3).permute(0, 2, 3, 1),
            C.flatten(2, 3).permute(0, 2, 3, 1),
            D.flatten(),
            delta_bias=dt_bias.flatten(),
            delta_softplus=True,
        )
        y = _Reorder.apply(y.mT.unflatten(2, D.shape), inverse, order)  # (b, l, m, k, d)
    return y.permute(0, 2, 3, 1, 4)


class _Reorder(torch.autograd.Function):
    """x (b, l, m, k, c), cells re-ordered by `index` (l, m, k).

    The gradient is the same by the inverse: torch would add into zeros, cell by cell.
    """

    @staticmethod
    def forward(ctx, x, index, inverse):
        ctx.save_for_backward(index, inverse)
        heads = torch.arange(x.shape[2], device=x.device)[:, None]
        routes = torch.arange(x.shape[3], device=x.device)
        return x[:, index, heads, routes]

    @staticmethod
    def backward(ctx, grad):
        index, inverse = ctx.saved_tensors
        return _Reorder.apply(grad, inverse, index), None, None


def _check(
    u: Tensor,
    x_dbl: Tensor,
    dt_weight: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    order: Tensor,
    inverse: Tensor,
) -> None:
    tensors = {"u": u, "x_dbl": x_dbl, "dt_weight": dt_weight, "dt_bias": dt_bias, "A": A, "D": D}
    check_types_and_devices(**{name: x for name, x in tensors.items() if x is not None})
    if u.dim() != 4:
        raise ValueError(f"u must be (b, l, m, d), got {tuple(u.shape)}")
    if A.dim() != 4:
        raise ValueError(f"A must be (m, k, d, n), got {tuple(A.shape)}")
    if dt_weight is not None and dt_weight.dim() != 4:
        raise ValueError(f"dt_weight must be (m, k, d, r), got {tuple(dt_weight.shape)}")
    b, cells, m, d = u.shape
    k, n = A.shape[1], A.shape[3]
    r = d if dt_weight is None else dt_weight.shape[3]
    for name, tensor, rule, expected in (
        ("x_dbl", x_dbl, "(b, l, m, k, r + 2n)", (b, cells, m, k, r + 2 * n)),
        ("dt_weight", dt_weight, "(m, k, d, r)", (m, k, d, r)),
        ("dt_bias", dt_bias, "(m, k, d)", (m, k, d)),
        ("A", A, "(m, k, d, n)", (m, k, d, n)),
        ("D", D, "(m, k, d)", (m, k, d)),
        ("order", order, "(m, k, l)", (m, k, cells)),
        ("inverse", inverse, "(m, k, l)", (m, k, cells)),
    ):
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(
                f"{name} must be {rule} = {expected} for this u, A and dt_weight, got {tuple(tensor.shape)}"
            )
    for name, index in (("order", order), ("inverse", inverse)):
        if index.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"{name} must be int32 or int64, got {index.dtype}")
        if index.device != u.device:
            raise ValueError(f"{name} is on {index.device} and u on {u.device}: move them to one device")


ROUTE_SCAN = Operation("route_scan", partial(composed_route_scan, scan=reference.selective_scan))
ROUTE_SCAN.register(
    "triton",
    triton.route_scan,
    unsupported_reason=lambda u, x_dbl, dt_weight, dt_bias, A, *rest, **options: availability.unsupported_reason(u, A),
)
ROUTE_SCAN.register(
    "mamba_ssm",
    partial(composed_route_scan, scan=mamba_ssm.selective_scan),
    unsupported_reason=lambda u, x_dbl, dt_weight, dt_bias, A, *rest, **options: mamba_ssm.unsupported_reason(u, A),
)
ROUTE_SCAN.register("cpu", cpu.route_scan, unsupported_reason=lambda u, *rest, **options: cpu.unsupported_reason(u))
ROUTE_SCAN.register("chunked", partial(composed_route_scan, scan=chunked.selective_scan))
