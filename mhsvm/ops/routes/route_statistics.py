"""What a gate over the routes of a scan needs to know of them.

b batch, m heads, k routes of a head, l cells, d channels of a head.
"""

from torch import Tensor

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.routes import route_statistics_cpu as cpu_statistics
from mhsvm.ops.routes.gates import EPS
from mhsvm.ops.scan.cpu import scan as cpu


def route_statistics(y: Tensor, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Sum over the routes, and their coefficient of variation above their minimum.

    std_k(y) / (mean_k(y - min_k y) + 1e-5) with the unbiased deviation. Where all routes are equal its gradient is 0;
    routes that share the minimum share its gradient.

    Args:
        y: Outputs of the routes, (b, m, k, l, d), float32 or float64, at least two routes.
        backend: As in `selective_scan`.
    Returns:
        Sum and coefficient, (b, m, l, d) each.
    Raises:
        ValueError: `y` has another shape or one route, or `backend` is unknown or cannot run here.
    Source: Ji 2024, arXiv 2406.05992.
    """
    check_routes(y)
    return ROUTE_STATISTICS(backend, y)


def composed_route_statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    """`route_statistics` by torch's operations: the reference of the fused ones.

    torch's own deviation has gradient 0 where all routes are equal; a square root written by hand has NaN.
    """
    above_minimum = y - y.amin(dim=2, keepdim=True)
    return y.sum(dim=2), y.std(dim=2, correction=1) / (above_minimum.mean(dim=2) + EPS)


def check_routes(y: Tensor) -> None:
    """Raise ValueError unless `y` is what a scan along two or more routes gives."""
    if y.dim() != 5 or y.shape[2] < 2:
        raise ValueError(f"y must be (b, m, k, l, d) with at least two routes, got {tuple(y.shape)}")


ROUTE_STATISTICS = Operation("route_statistics", composed_route_statistics)
ROUTE_STATISTICS.register("cpu", cpu_statistics.route_statistics, unsupported_reason=cpu.unsupported_reason)
