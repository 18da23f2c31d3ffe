"""The selective scan along the routes of a map, for all heads of a block at once. Letters are those of `mhsvm.ops`."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mhsvm.ops import triton_support
from mhsvm.ops.dispatch import Operation
from mhsvm.ops.routes.projection import project
from mhsvm.ops.scan import chunked, mamba_ssm, portable, reference
from mhsvm.ops.scan.cpu import cpu_scan
from mhsvm.ops.scan.cuda import cuda_scan
from mhsvm.ops.scan.selective_scan import check_types_and_devices
from mhsvm.ops.scan.triton import triton_scan
from mhsvm.ops.sizes import refuse_empty


def route_scan(
    u: Tensor,
    x_proj: Tensor,
    delta_proj: Tensor,
    delta_bias: Tensor,
    A: Tensor,
    D: Tensor,
    order: Tensor,
    inverse: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Scan a map along every route of every head, without a gate or sum over the routes.

    x_proj projects the values of each cell to r + 2n numbers: r of delta, then B and C. Along route j of head i the
    cells have the order `order[i, j]`, delta is softplus(delta_proj x + delta_bias) of the r numbers x, and the outputs
    return to their cells. Under autocast the projections are in its 16-bit type.

    Args:
        u: Values in map order, (b, l, m, d), float16, bfloat16, float32 or float64.
        x_proj: Projection of the values to r numbers of delta, B (n) and C (n), (m, k, r + 2n, d).
        delta_proj: Projection of the r numbers to delta, (m, k, d, r).
        delta_bias: Bias of delta, (m, k, d).
        A: Decay rates, (m, k, d, n), negative.
        D: Weight of the direct path, (m, k, d).
        order: Position on the route -> cell, a permutation of 0..l-1, (m, k, l), int32 or int64.
        inverse: Cell -> position on the route, (m, k, l), int32 or int64.
        backend: As in `selective_scan`.
    Returns:
        y, (b, m, k, l, d), in map order, one output a route. It is float32, or float64 if `u` is: never rounded to 16
        bits, as a gate over the routes needs their small differences.
    Raises:
        ValueError: Shapes, types or devices disagree, or `backend` is unknown or cannot run here.
    Source: Gu & Dao 2023, arXiv 2312.00752, algorithm 2; routes as in Ji 2024, arXiv 2406.05992.
    """
    _check(u, x_proj, delta_proj, delta_bias, A, D, order, inverse)
    return ROUTE_SCAN(backend, u, x_proj, delta_proj, delta_bias, A, D, order, inverse)


def route_scan_reference(
    u: Tensor,
    x_proj: Tensor,
    delta_proj: Tensor,
    delta_bias: Tensor,
    A: Tensor,
    D: Tensor,
    order: Tensor,
    inverse: Tensor,
    *,
    scan: Callable[..., Tensor | tuple[Tensor, Tensor]],
    reorder: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """`route_scan` as projection, index, scan and index: the reference.

    `scan` is a backend's selective scan, and `reorder` its form of `_Reorder`.
    """
    reorder = reorder or _Reorder.apply
    k, n, r = A.shape[1], A.shape[3], delta_proj.shape[3]
    dtype = reference.state_dtype(u)
    projected = project(u, x_proj)
    # Positions first, like a sequence: (l, m, k). Contiguous, as torch's compiler does not foresee the memory order of
    # an indexed tensor otherwise.
    order, inverse = order.permute(2, 0, 1).contiguous(), inverse.permute(2, 0, 1).contiguous()
    with reference.without_autocast(u):
        u, projected = u.to(dtype), projected.to(dtype)
        u = reorder(u.unsqueeze(3).expand(-1, -1, -1, k, -1), order, inverse)  # (b, l, m, k, d)
        projected = reorder(projected, order, inverse)
        low_rank, B, C = projected.split((r, n, n), dim=-1)
        delta = torch.einsum("blmkr,mkdr->blmkd", low_rank, delta_proj.to(dtype))
        y = scan(
            u.flatten(2),
            delta.flatten(2),
            A.flatten(0, 2),
            B.flatten(2, 3),
            C.flatten(2, 3),
            D.flatten(),
            delta_bias=delta_bias.flatten(),
            delta_softplus=True,
        )
        assert isinstance(y, Tensor)  # it was not asked for the last state
        y = reorder(y.unflatten(2, D.shape), inverse, order)  # (b, l, m, k, d)
    return y.permute(0, 2, 3, 1, 4)


class _Reorder(torch.autograd.Function):
    """x (b, l, m, k, c) with its cells reordered by `index` (l, m, k).

    Its gradient is reordered by the inverse; torch would add it into zeros, cell by cell.
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


def _reorder_portably(x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    """`_Reorder` as one operation along one axis, which every runtime has."""
    m, k = index.shape[1:]
    routes = torch.arange(m * k, device=x.device).view(m, k)
    return x.flatten(1, 3).index_select(1, (index * (m * k) + routes).flatten()).unflatten(1, tuple(index.shape))


def _check(
    u: Tensor,
    x_proj: Tensor,
    delta_proj: Tensor,
    delta_bias: Tensor,
    A: Tensor,
    D: Tensor,
    order: Tensor,
    inverse: Tensor,
) -> None:
    check_types_and_devices(u=u, x_proj=x_proj, delta_proj=delta_proj, delta_bias=delta_bias, A=A, D=D)
    if u.dim() != 4:
        raise ValueError(f"u must be (b, l, m, d), got {tuple(u.shape)}")
    if A.dim() != 4:
        raise ValueError(f"A must be (m, k, d, n), got {tuple(A.shape)}")
    if delta_proj.dim() != 4:
        raise ValueError(f"delta_proj must be (m, k, d, r), got {tuple(delta_proj.shape)}")
    refuse_empty("u", u, "b, l, m, d")
    refuse_empty("A", A, "m, k, d, n", batch=False)
    refuse_empty("delta_proj", delta_proj, "m, k, d, r", batch=False)
    _, cells, m, d = u.shape
    k, n, r = A.shape[1], A.shape[3], delta_proj.shape[3]
    for name, tensor, rule, expected in (
        ("x_proj", x_proj, "(m, k, r + 2n, d)", (m, k, r + 2 * n, d)),
        ("delta_proj", delta_proj, "(m, k, d, r)", (m, k, d, r)),
        ("delta_bias", delta_bias, "(m, k, d)", (m, k, d)),
        ("A", A, "(m, k, d, n)", (m, k, d, n)),
        ("D", D, "(m, k, d)", (m, k, d)),
        ("order", order, "(m, k, l)", (m, k, cells)),
        ("inverse", inverse, "(m, k, l)", (m, k, cells)),
    ):
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f"{name} must be {rule} = {expected} for this u, A and delta_proj, got {tuple(tensor.shape)}"
            )
    for name, index in (("order", order), ("inverse", inverse)):
        if index.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"{name} must be int32 or int64, got {index.dtype}")
        if index.device != u.device:
            raise ValueError(f"{name} is on {index.device} and u on {u.device}: move them to one device")


def _unsupported_by_cuda(
    u: Tensor, x_proj: Tensor, delta_proj: Tensor, delta_bias: Tensor, A: Tensor, *arguments: object, **options: object
) -> str | None:
    return cuda_scan.unsupported_scan(u, A)


def _unsupported_by_triton(
    u: Tensor, x_proj: Tensor, delta_proj: Tensor, delta_bias: Tensor, A: Tensor, *arguments: object, **options: object
) -> str | None:
    return triton_support.unsupported_scan(u, A)


def _unsupported_by_mamba_ssm(
    u: Tensor, x_proj: Tensor, delta_proj: Tensor, delta_bias: Tensor, A: Tensor, *arguments: object, **options: object
) -> str | None:
    return mamba_ssm.unsupported_reason(u, delta_proj, A)


ROUTE_SCAN = Operation("route_scan", partial(route_scan_reference, scan=reference.selective_scan))
ROUTE_SCAN.register("cuda", cuda_scan.route_scan, unsupported_reason=_unsupported_by_cuda)
ROUTE_SCAN.register("triton", triton_scan.route_scan, unsupported_reason=_unsupported_by_triton)
ROUTE_SCAN.register(
    "mamba_ssm",
    partial(route_scan_reference, scan=mamba_ssm.selective_scan),
    unsupported_reason=_unsupported_by_mamba_ssm,
)
ROUTE_SCAN.register("cpu", cpu_scan.route_scan, unsupported_reason=cpu_scan.unsupported_reason)
ROUTE_SCAN.register("chunked", partial(route_scan_reference, scan=chunked.selective_scan))
ROUTE_SCAN.register("portable", partial(route_scan_reference, scan=portable.selective_scan, reorder=_reorder_portably))
