"""Statistics over the routes of a scan for a gate: their sum and their coefficient of variation.

Letters are those of `mhsvm.ops`.
"""

import numpy as np
import torch
from torch import Tensor

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.routes.gates import EPS
from mhsvm.ops.scan.cpu.cpu_scan import unsupported_reason
from mhsvm.ops.scan.cpu.layout import num_slices


def route_statistics(y: Tensor, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Sum over the routes, and their coefficient of variation above their minimum.

    std_k(y) / (mean_k(y - min_k y) + 1e-5) with the unbiased deviation. If all routes are equal its gradient is 0;
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


def route_statistics_reference(y: Tensor) -> tuple[Tensor, Tensor]:
    """`route_statistics` by torch's operations: the reference.

    torch's own deviation has gradient 0 if all routes are equal; a square root written by hand has NaN.
    """
    if not y.numel():
        # torch would warn of too few routes
        return y.sum(dim=2), y.sum(dim=2)
    above_minimum = y - y.amin(dim=2, keepdim=True)
    return y.sum(dim=2), y.std(dim=2, correction=1) / (above_minimum.mean(dim=2) + EPS)


def check_routes(y: Tensor) -> None:
    """Raise ValueError unless `y` has the shape of a scan's outputs along two or more routes."""
    if y.dim() != 5 or y.shape[2] < 2:
        raise ValueError(f"y must be (b, m, k, l, d) with at least two routes, got {tuple(y.shape)}")


@torch.library.custom_op("mhsvm::cpu_route_statistics", mutates_args=())
def cpu_route_statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    """`route_statistics` by numba's kernels, with gradients."""
    # numba is imported by the first call, not by `import mhsvm.ops`.
    from mhsvm.ops.routes.route_statistics_cpu_kernels import route_statistics_fwd_cpu_kernel as kernel

    total, variation = _empty_statistics(y)
    _launch(kernel, y.shape, y=y, total=total, variation=variation)
    return total, variation


@cpu_route_statistics.register_fake
def _empty_statistics(y):
    b, m, _, length, d = y.shape
    return y.new_empty(b, m, length, d), y.new_empty(b, m, length, d)


@torch.library.custom_op("mhsvm::cpu_route_statistics_backward", mutates_args=())
def _cpu_backward(y: Tensor, grad_total: Tensor, grad_variation: Tensor) -> Tensor:
    from mhsvm.ops.routes.route_statistics_cpu_kernels import route_statistics_bwd_cpu_kernel as kernel

    grad_y = _empty_gradient(y, grad_total, grad_variation)
    _launch(kernel, y.shape, y=y, grad_total=grad_total, grad_variation=grad_variation, grad_y=grad_y)
    return grad_y


@_cpu_backward.register_fake
def _empty_gradient(y, grad_total, grad_variation):
    return y.new_empty(y.shape)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad_total, grad_variation):
    return _cpu_backward(*ctx.saved_tensors, grad_total, grad_variation)


cpu_route_statistics.register_autograd(_differentiate, setup_context=_save)


def _launch(kernel, shape: torch.Size, **tensors: Tensor) -> None:
    from mhsvm.ops.scan.cpu.compiled import flat, launch

    b, m, k, length, d = shape
    arguments = {
        # outputs are contiguous already
        **{name: flat(x.contiguous()) for name, x in tensors.items()},
        "k": k,
        "size": length * d,
        "weight": np.float32(1 / k),
        "unbiased_weight": np.float32(1 / (k - 1)),
        "eps": np.float32(EPS),
    }
    launch(kernel, arguments, units=b * m * num_slices(length * d), work=shape.numel())


ROUTE_STATISTICS = Operation("route_statistics", route_statistics_reference)
ROUTE_STATISTICS.register("cpu", cpu_route_statistics, unsupported_reason=unsupported_reason)
