"""Launches of the CPU kernels of the scan: output memory, strides and units of work. Shapes are those of `cpu_scan`."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from mhsvm.ops.scan.cpu.compiled import flat, launch
from mhsvm.ops.scan.cpu.cpu_kernels import selective_scan_bwd_cpu_kernel, selective_scan_fwd_cpu_kernel
from mhsvm.ops.scan.cpu.layout import num_splits


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
    """Fill y, last_state and, unless it is empty, starts."""
    sizes = _sizes(u, A, projected)
    b, m, k, d = (sizes[name] for name in "bmkd")
    strided = {
        "u": _by_head(u, k),
        "delta": _by_head(delta, k),
        "projected": _by_route(projected),
        "B": _by_route(B),
        "C": _by_route(C),
        "z": _by_head(z, k),
        "y": y,
    }
    arguments = {
        **{name: flat(x) for name, x in strided.items()},
        "strides": _strides((*strided.values(), _by_sample(order, b))),
        "order": flat(order),
        **_parameters(weight, bias, A, D),
        "last_state": flat(last_state),
        "starts": flat(starts),
        **sizes,
        "use_softplus": use_softplus,
        "use_gate": z is not None,
    }
    units, work = b * m * k * num_splits(d), y.numel() * A.shape[3]
    launch(selective_scan_fwd_cpu_kernel, arguments, units=units, work=work)


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
    """The gradients of the tensors that are given, in their order."""
    sizes = _sizes(u, A, projected)
    b, m, k, length, d, n, r = sizes.values()
    splits = num_splits(d)
    grad_u, grad_delta, grad_z = (None if x is None else x.new_empty(x.shape) for x in (u, delta, z))
    grad_projected, grad_B, grad_C = (u.new_empty(splits, b, length, m, k, count) for count in (r, n, n))
    grad_weight, grad_bias, grad_A, grad_D = (u.new_empty(b, m, k, d, *last) for last in ((r,), (), (n,), ()))
    strided = {
        "u": _by_head(u, k),
        "delta": _by_head(delta, k),
        "projected": _by_route(projected),
        "B": _by_route(B),
        "C": _by_route(C),
        "z": _by_head(z, k),
        "grad_y": grad_y,
    }
    strided_gradients = (
        *(_by_head(x, k) for x in (grad_u, grad_delta, grad_z)),
        *(_by_route(x[0]) for x in (grad_projected, grad_B)),
    )
    arguments = {
        **{name: flat(x) for name, x in strided.items()},
        "strides": _strides((*strided.values(), _by_sample(order, b), *strided_gradients)),
        "order": flat(order),
        **_parameters(weight, bias, A, D),
        "grad_last_state": flat(grad_last_state.contiguous()),
        "starts": flat(starts),
        "grad_u": flat(grad_u),
        "grad_delta": flat(grad_delta),
        "grad_projected": flat(grad_projected),
        "grad_B": flat(grad_B),
        "grad_C": flat(grad_C),
        "grad_z": flat(grad_z),
        "grad_weight": flat(grad_weight),
        "grad_bias": flat(grad_bias),
        "grad_A": flat(grad_A),
        "grad_D": flat(grad_D),
        **sizes,
        "use_softplus": use_softplus,
        "use_gate": z is not None,
    }
    launch(selective_scan_bwd_cpu_kernel, arguments, units=b * m * splits, work=3 * grad_y.numel() * n)
    # Sums in a fixed order, so that they are the same in every run.
    grad_projected, grad_B, grad_C = (x[0] if splits == 1 else x.sum(0) for x in (grad_projected, grad_B, grad_C))
    grad_weight, grad_bias, grad_A, grad_D = (x.sum(0) for x in (grad_weight, grad_bias, grad_A, grad_D))
    inputs = (u, delta, projected, weight, bias, A, B, C, D, z)
    gradients = (
        grad_u, grad_delta, grad_projected, grad_weight, grad_bias, grad_A, grad_B, grad_C, grad_D, grad_z,
    )  # fmt: skip
    given = zip(inputs, gradients, strict=True)
    return [gradient for x, gradient in given if x is not None and gradient is not None]


def _sizes(u: Tensor, A: Tensor, projected: Tensor | None) -> dict[str, int]:
    b, length, m, d = u.shape
    r = 0 if projected is None else projected.shape[-1]
    return {"b": b, "m": m, "k": A.shape[1], "length": length, "d": d, "n": A.shape[3], "r": r}


def _by_head(x: Tensor | None, k: int) -> Tensor | None:
    """(b, l, m, d) -> (b, m, k, l, d), the same memory for every route."""
    return None if x is None else x.transpose(1, 2).unsqueeze(2).expand(-1, -1, k, -1, -1)


def _by_route(x: Tensor | None) -> Tensor | None:
    """(b, l, m, k, n) -> (b, m, k, l, n)."""
    return None if x is None else x.permute(0, 2, 3, 1, 4)


def _by_sample(order: Tensor, b: int) -> Tensor:
    """(m, k, l) -> (b, m, k, l, 1), the same memory for every sample."""
    return order.unsqueeze(-1).expand(b, -1, -1, -1, -1)


def _strides(tensors: Sequence[Tensor | None]) -> np.ndarray:
    return np.array([(0,) * 5 if x is None else x.stride() for x in tensors])


def _parameters(weight: Tensor | None, bias: Tensor | None, A: Tensor, D: Tensor | None) -> dict[str, np.ndarray]:
    """The parameters, contiguous; a bias or D that is not given is zero."""
    zeros = None if bias is not None and D is not None else A.new_zeros(A.shape[:3])
    bias, D = (zeros if x is None else x for x in (bias, D))
    named = {"weight": weight, "bias": bias, "A": A, "D": D}
    return {name: flat(None if x is None else x.contiguous()) for name, x in named.items()}
