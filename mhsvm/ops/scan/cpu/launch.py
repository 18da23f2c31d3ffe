"""From tensors to kernels: flat arrays and strides, units of work, compilation."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numba import types
from torch import Tensor

from mhsvm.ops.routes import route_statistics_cpu_kernels as statistics_kernels
from mhsvm.ops.scan.cpu import kernels
from mhsvm.ops.scan.cpu.compiled import compiled
from mhsvm.ops.scan.cpu.layout import num_parts, num_slices
from mhsvm.ops.scan.cpu.pool import run_units

_FLOATS = types.Array(types.float32, 1, "C")
_INDICES = types.Array(types.int64, 1, "C")
_STRIDES = types.Array(types.int64, 2, "C")
_SIZES = (types.int64,) * 7
_FLAGS = (types.boolean,) * 2
_UNITS = (types.int64,) * 2

_FORWARD_TYPES = (*[_FLOATS] * 7, _STRIDES, _INDICES, *[_FLOATS] * 6, *_SIZES, *_FLAGS, *_UNITS)
_BACKWARD_TYPES = (*[_FLOATS] * 7, _STRIDES, _INDICES, *[_FLOATS] * 16, *_SIZES, *_FLAGS, *_UNITS)

_SHARES = (types.float32,) * 2
_STATISTICS_TYPES = (*[_FLOATS] * 3, types.int64, types.int64, *_SHARES, *_UNITS)
_STATISTICS_BACKWARD_TYPES = (_FLOATS, *_STATISTICS_TYPES)

_NOTHING = np.empty(0, np.float32)


def forward(
    u: Tensor,
    delta: Tensor | None,
    projected: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    order: Tensor,
    use_softplus: bool,
    y: Tensor,
    last_state: Tensor,
    starts: Tensor,
) -> None:
    """Fill y, last_state and, where it has room, starts. Shapes as in `autograd`."""
    sizes = _sizes(u, A, projected)
    b, m, k, _, d, _, _ = sizes
    inputs = (_per_route(u, k), _per_route(delta, k), projected, B, C, _per_route(z, k))
    arguments = (
        *(_flat(x) for x in (*inputs, y)),
        _strides((*inputs, y, _per_sample(order, b))),
        _flat(order),
        *_parameters(weight, bias, A, D),
        _flat(last_state),
        _flat(starts),
        *sizes,
        use_softplus,
        z is not None,
    )
    kernel = compiled(kernels.scan_forward, _FORWARD_TYPES)
    run_units(kernel, arguments, units=b * m * k * num_parts(d), work=y.numel() * A.shape[3])


def backward(
    u: Tensor,
    delta: Tensor | None,
    projected: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    order: Tensor,
    use_softplus: bool,
    starts: Tensor,
    grad_y: Tensor,
    grad_last_state: Tensor,
) -> list[Tensor]:
    """The gradients of those tensors that are given, in their order. Shapes as in `autograd`."""
    sizes = b, m, k, length, d, n, r = _sizes(u, A, projected)
    parts = num_parts(d)
    grad_u = torch.empty_like(u)
    grad_delta, grad_z = (None if x is None else torch.empty_like(x) for x in (delta, z))
    # Routes last but one, as in the projections of a cell: (part, b, l, m, k, n).
    grad_projected, grad_B, grad_C = (u.new_empty(parts, b, length, m, k, count) for count in (r, n, n))
    grad_weight, grad_bias, grad_A, grad_D = (u.new_empty(b, m, k, d, *last) for last in ((r,), (), (n,), ()))
    strided = (_per_route(u, k), _per_route(delta, k), projected, B, C, _per_route(z, k), grad_y)
    strided_gradients = (
        *(_per_route(x, k) for x in (grad_u, grad_delta, grad_z)),
        *(x[0].permute(0, 2, 3, 1, 4) for x in (grad_projected, grad_B)),
    )
    arguments = (
        *(_flat(x) for x in strided),
        _strides((*strided, _per_sample(order, b), *strided_gradients)),
        _flat(order),
        *_parameters(weight, bias, A, D),
        _flat(grad_last_state.contiguous()),
        *(_flat(x) for x in (starts, grad_u, grad_delta, grad_projected, grad_B, grad_C, grad_z)),
        *(_flat(x) for x in (grad_weight, grad_bias, grad_A, grad_D)),
        *sizes,
        use_softplus,
        z is not None,
    )
    kernel = compiled(kernels.scan_backward, _BACKWARD_TYPES)
    run_units(kernel, arguments, units=b * m * parts, work=3 * grad_y.numel() * n)
    by_cell = (x[0] if parts == 1 else x.sum(0) for x in (grad_projected, grad_B, grad_C))
    grad_projected, grad_B, grad_C = (x.permute(0, 2, 3, 1, 4) for x in by_cell)
    # One after the other, sample by sample: the same sum in every run.
    grad_weight, grad_bias, grad_A, grad_D = (x.sum(0) for x in (grad_weight, grad_bias, grad_A, grad_D))
    inputs = (u, delta, projected, weight, bias, A, B, C, D, z)
    gradients = (
        grad_u, grad_delta, grad_projected, grad_weight, grad_bias, grad_A, grad_B, grad_C, grad_D, grad_z,
    )  # fmt: skip
    return [gradient for x, gradient in zip(inputs, gradients, strict=True) if x is not None]


def measure_routes(y: Tensor, total: Tensor, variation: Tensor) -> None:
    """Fill total and variation (b, m, l, d) from y (b, m, k, l, d)."""
    kernel = compiled(statistics_kernels.measure_routes, _STATISTICS_TYPES)
    _run_on_planes(kernel, y, y.contiguous(), total, variation)


def differentiate_routes(y: Tensor, grad_total: Tensor, grad_variation: Tensor, grad_y: Tensor) -> None:
    """Fill grad_y from the gradients of total and variation."""
    kernel = compiled(statistics_kernels.differentiate_routes, _STATISTICS_BACKWARD_TYPES)
    _run_on_planes(kernel, y, *(x.contiguous() for x in (y, grad_total, grad_variation)), grad_y)


def _run_on_planes(kernel: Callable[..., None], y: Tensor, *tensors: Tensor) -> None:
    b, m, k, length, d = y.shape
    arguments = (*(_flat(x) for x in tensors), k, length * d, np.float32(1 / k), np.float32(1 / (k - 1)))
    run_units(kernel, arguments, units=b * m * num_slices(length * d), work=y.numel())


def _sizes(u: Tensor, A: Tensor, projected: Tensor | None) -> tuple[int, ...]:
    b, m, length, d = u.shape
    return b, m, A.shape[1], length, d, A.shape[3], 0 if projected is None else projected.shape[-1]


def _per_route(x: Tensor | None, k: int) -> Tensor | None:
    """(b, m, l, d) -> (b, m, k, l, d), the same memory for every route."""
    return None if x is None else x.unsqueeze(2).expand(-1, -1, k, -1, -1)


def _per_sample(order: Tensor, b: int) -> Tensor:
    """(m, k, l) -> (b, m, k, l, 1), the same memory for every sample."""
    return order.unsqueeze(-1).expand(b, -1, -1, -1, -1)


def _flat(x: Tensor | None) -> np.ndarray:
    """All memory from the first element of x to its last."""
    if x is None or x.numel() == 0:
        return _NOTHING
    span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return torch.as_strided(x, (span,), (1,)).numpy()


def _strides(tensors: Sequence[Tensor | None]) -> np.ndarray:
    return np.array([(0,) * 5 if x is None else x.stride() for x in tensors])


def _parameters(weight: Tensor | None, bias: Tensor | None, A: Tensor, D: Tensor | None) -> tuple[np.ndarray, ...]:
    """Those left out are zeros; without a rank there is no weight."""
    zeros = None if bias is not None and D is not None else A.new_zeros(A.shape[:3])
    bias, D = (zeros if x is None else x for x in (bias, D))
    return tuple(_flat(x.contiguous()) if x is not None else _NOTHING for x in (weight, bias, A, D))
