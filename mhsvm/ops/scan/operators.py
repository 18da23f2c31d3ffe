"""The scans of a GPU backend as operators of torch with gradients, with their shapes for torch.compile.

Under torch.compile, and wherever torch traces or replaces operations, a scan is an operator of torch. Otherwise the
same functions run in an autograd function, which costs less time: a small scan takes less time on the GPU than its call
takes in Python. Letters are those of `mhsvm.ops`.
"""

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import _get_current_dispatch_mode

from mhsvm.ops.routes.projection import project
from mhsvm.ops.scan.inputs import Inputs, partial_dtype

_SCAN_ARGUMENTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "bool delta_softplus"
)
_ROUTE_ARGUMENTS = "Tensor u, Tensor projected, Tensor delta_bias, Tensor A, Tensor D, Tensor order"


class ScanOperators:
    """The scans of a backend.

    Args:
        name: The backend.
        launch_module: Module with `forward` and `backward`, imported when an operator first runs.
        saved_shape: Shape of the states saved by a forward pass, from b, l, g, n and e.
    """

    def __init__(self, name: str, launch_module: str, saved_shape: Callable[..., tuple[int, ...]]) -> None:
        self._launch_module, self._saved_shape = launch_module, saved_shape
        self._scan = self._operator(
            f"{name}_selective_scan",
            f"({_SCAN_ARGUMENTS}, bool save) -> (Tensor, Tensor, Tensor)",
            self.scan_forward,
            self._fake_scan,
        )
        self._scan_backward = self._operator(
            f"{name}_selective_scan_backward",
            f"(Tensor grad_y, Tensor? grad_last, Tensor saved, {_SCAN_ARGUMENTS}) -> Tensor[]",
            self.scan_backward,
            _fake_scan_backward,
        )
        self._routes = self._operator(
            f"{name}_route_scan",
            f"({_ROUTE_ARGUMENTS}, bool save) -> (Tensor, Tensor)",
            self.routes_forward,
            self._fake_routes,
        )
        self._routes_backward = self._operator(
            f"{name}_route_scan_backward",
            f"(Tensor grad_y, Tensor saved, {_ROUTE_ARGUMENTS}) -> Tensor[]",
            self.routes_backward,
            _fake_routes_backward,
        )
        self._scan.register_autograd(
            lambda ctx, grad_y, grad_last, _: _differentiate_scan(ctx, self._scan_backward, grad_y, grad_last),
            setup_context=_save_scan,
        )
        self._routes.register_autograd(
            lambda ctx, grad_y, _: _differentiate_routes(ctx, self._routes_backward, grad_y),
            setup_context=_save_routes,
        )

    def selective_scan(
        self,
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
        """`mhsvm.ops.scan.selective_scan.sequence_scan`."""
        tensors = u, delta, A, B, C, D, z, delta_bias
        save = _needs_gradient(*tensors)
        if _runs_as_operator(u):
            y, last, _ = self._scan(*tensors, delta_softplus, save)
        elif save:
            y, last = _DirectScan.apply(self, *tensors, delta_softplus)
        else:
            y, last, _ = self.scan_forward(*tensors, delta_softplus, False)
        return (y, last) if return_last_state else y

    def route_scan(
        self,
        u: Tensor,
        x_proj: Tensor,
        delta_proj: Tensor,
        delta_bias: Tensor,
        A: Tensor,
        D: Tensor,
        order: Tensor,
        inverse: Tensor,
    ) -> Tensor:
        """`mhsvm.ops.route_scan`; reads the cells of a route by index.

        One product computes delta, B and C: its weight is the product of both projections of delta, and the projections
        of B and C.
        """
        low_rank, others = x_proj.split((delta_proj.shape[-1], 2 * A.shape[-1]), dim=2)
        # the types of both projections may differ; under autocast the product is in its type
        product = (delta_proj @ low_rank.to(delta_proj.dtype)).to(low_rank.dtype)
        tensors = u, project(u, torch.cat((product, others), dim=2)), delta_bias, A, D, order
        save = _needs_gradient(*tensors)
        if _runs_as_operator(u):
            return self._routes(*tensors, save)[0]
        return _DirectRoutes.apply(self, *tensors) if save else self.routes_forward(*tensors, False)[0]

    def scan_forward(self, u, delta, A, B, C, D, z, delta_bias, delta_softplus, save):
        """y, the last state (b, d, n), and the saved states."""
        inputs = _scan_inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        y = u.new_empty(u.shape)
        last, saved = self._launch().forward(inputs, y.unflatten(2, (B.shape[2], -1)), save=save)
        return y, _by_channel(last), saved

    def scan_backward(self, grad_y, grad_last, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
        """Gradients of u, delta, B, C and, if given, z, and those of the parameters in one row."""
        inputs = _scan_inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        g = B.shape[2]
        grad_last = None if grad_last is None else grad_last.unflatten(1, (g, -1)).mT.contiguous()
        projections = tuple(x.new_empty(x.shape) for x in (inputs.delta, inputs.B, inputs.C))
        grad_y = grad_y.unflatten(2, (g, -1))
        grads = self._launch().backward(inputs, saved, grad_y, grad_last, projections=projections)
        grad_delta, grad_B, grad_C = projections
        by_input = [
            (u, grads.u.flatten(2)),
            (delta, grad_delta.flatten(2)),
            (B, grad_B.squeeze(3)),
            (C, grad_C.squeeze(3)),
        ]
        if grads.z is not None:
            by_input.append((z, grads.z.flatten(2)))
        return [*(grad.to(x.dtype) for x, grad in by_input), grads.sums]

    def routes_forward(self, u, projected, delta_bias, A, D, order, save):
        """y (b, m, k, l, d) and the saved states; `projected` (b, l, m, k, d + 2n) holds delta, B and C."""
        b, length, m, d = u.shape
        y = u.new_empty((b, m, A.shape[1], length, d), dtype=torch.float32)
        inputs = _route_inputs(u, projected, delta_bias, A, D, order)
        _, saved = self._launch().forward(inputs, y.flatten(1, 2).transpose(1, 2), save=save)
        return y, saved

    def routes_backward(self, grad_y, saved, u, projected, delta_bias, A, D, order):
        """Gradients of u, one a route, and of `projected`, and those of the parameters in one row."""
        inputs = _route_inputs(u, projected, delta_bias, A, D, order)
        grad_projected = _heads_first(projected)
        grad_y = grad_y.flatten(1, 2).transpose(1, 2)
        grads = self._launch().backward(inputs, saved, grad_y, None, projections=_split(grad_projected, A))
        return [grads.u, grad_projected, grads.sums]

    def _fake_scan(self, u, delta, A, B, C, D, z, delta_bias, delta_softplus, save):
        b, length, d = u.shape
        g, n = B.shape[2:]
        last = u.new_empty((b, g, n, d // g), dtype=torch.float32)
        saved = self._saved_shape(b, length if save else 0, g, n, d // g)
        return u.new_empty(u.shape), _by_channel(last), u.new_empty(saved, dtype=partial_dtype(u))

    def _fake_routes(self, u, projected, delta_bias, A, D, order, save):
        b, length, m, d = u.shape
        k, n = A.shape[1], A.shape[3]
        saved = self._saved_shape(b, length if save else 0, m * k, n, d)
        return u.new_empty((b, m, k, length, d), dtype=torch.float32), u.new_empty(saved, dtype=partial_dtype(u))

    def _launch(self) -> ModuleType:
        return _module(self._launch_module)

    @staticmethod
    def _operator(name: str, schema: str, run: Callable[..., Any], fake: Callable[..., Any]):
        operator = torch.library.custom_op(f"mhsvm::{name}", run, mutates_args=(), schema=schema)
        operator.register_fake(fake)
        return operator


@functools.cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(name)


class _DirectScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, operators, *arguments):
        *tensors, ctx.delta_softplus = arguments
        y, last, saved = operators.scan_forward(*arguments, True)
        ctx.save_for_backward(saved, *tensors)
        ctx.set_materialize_grads(False)
        ctx.operators = operators
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y, grad_last):
        gradients = _differentiate_scan(ctx, ctx.operators.scan_backward, grad_y, grad_last)
        return None, *gradients[:-1]


class _DirectRoutes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, operators, *tensors):
        y, saved = operators.routes_forward(*tensors, True)
        ctx.save_for_backward(saved, *tensors)
        ctx.operators = operators
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        return None, *_differentiate_routes(ctx, ctx.operators.routes_backward, grad_y)[:-1]


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _runs_as_operator(u: Tensor) -> bool:
    """Whether torch traces or replaces operations: then it has to see the scan as one."""
    return (
        torch.compiler.is_compiling()
        or type(u) not in (Tensor, torch.nn.Parameter)
        or _get_current_dispatch_mode() is not None
        or torch._C._are_functorch_transforms_active()
        or torch.jit.is_tracing()
    )


def _scan_inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus) -> Inputs:
    g = B.shape[2]

    b, length, d = u.shape
    by_group, e = (b, length, g, d // g), d // g
    return Inputs(
        u.view(by_group),
        delta.view(b, length, g, 1, e),
        A.view(g, e, -1).mT,
        B.unsqueeze(3),
        C.unsqueeze(3),
        None if D is None else D.view(g, e),
        None if z is None else z.view(by_group),
        None if delta_bias is None else delta_bias.view(g, e),
        None,
        delta_softplus,
    )


def _by_channel(last: Tensor) -> Tensor:
    """Last state (b, g, n, e) -> (b, d, n), contiguous."""
    return last.mT.contiguous().flatten(1, 2)


def _fake_scan_backward(grad_y, grad_last, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    sequences = (x.new_empty(x.shape) for x in (u, delta, B, C, z) if x is not None)
    return [*sequences, _empty_sums(A, D, delta_bias)]


def _save_scan(ctx, inputs, output):
    *tensors, ctx.delta_softplus, _ = inputs
    ctx.save_for_backward(output[2], *tensors)
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _differentiate_scan(ctx, run: Callable[..., list[Tensor]], grad_y: Tensor | None, grad_last: Tensor | None):
    saved, *tensors = ctx.saved_tensors
    grad_y = torch.zeros_like(tensors[0]) if grad_y is None else grad_y
    du, ddelta, dB, dC, *dz, sums = run(grad_y, grad_last, saved, *tensors, ctx.delta_softplus)
    _, _, A, B, _, D, z, bias = tensors
    dA, dD, dbias = _split_sums(sums, A, D, bias, groups=B.shape[2])
    return du, ddelta, dA, dB, dC, dD, None if z is None else dz[0], dbias, None, None


def _empty_sums(A: Tensor, D: Tensor | None, bias: Tensor | None) -> Tensor:
    """Gradients of the parameters in one row, so that one sum over samples computes them all."""
    return A.new_empty(sum(0 if x is None else x.numel() for x in (A, D, bias)), dtype=torch.float32)


def _split_sums(
    sums: Tensor, A: Tensor, D: Tensor | None, bias: Tensor | None, *, groups: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of A (..., n), D and bias from that row, where A is in the order of the kernels, (g, n, e)."""
    dA, dD, dbias = sums.split([0 if x is None else x.numel() for x in (A, D, bias)])
    dA = dA.view(groups, A.shape[-1], -1).mT.reshape(A.shape).to(A.dtype)
    return dA, *(None if x is None else dx.view(x.shape).to(x.dtype) for x, dx in ((D, dD), (bias, dbias)))


def _route_inputs(u, projected, delta_bias, A, D, order) -> Inputs:
    delta, B, C = _split(projected, A)
    delta_bias, A, D, order = (x.flatten(0, 1) for x in (delta_bias, A, D, order))
    return Inputs(u, delta, A.mT, B, C, D, None, delta_bias, order, True)


def _split(projected: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return projected.split((A.shape[2], A.shape[3], A.shape[3]), dim=-1)


def _fake_routes_backward(grad_y, saved, u, projected, delta_bias, A, D, order):
    b, length, m, d = u.shape
    grad_u = u.new_empty((b, length, m * A.shape[1], d), dtype=partial_dtype(u) if A.shape[1] > 1 else u.dtype)
    return [grad_u, _heads_first(projected), _empty_sums(A, D, delta_bias)]


def _heads_first(projected: Tensor) -> Tensor:
    """An empty tensor like `projected`, in the memory order of the product that reads it: a head contiguous."""
    b, length, m, k, width = projected.shape
    return projected.new_empty((m, b, length, k, width)).permute(1, 2, 0, 3, 4)


def _save_routes(ctx, inputs, output):
    *tensors, _ = inputs
    ctx.save_for_backward(output[1], *tensors)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate_routes(ctx, run: Callable[..., list[Tensor]], grad_y: Tensor):
    saved, *tensors = ctx.saved_tensors
    u, _, delta_bias, A, D, _ = tensors
    by_route, grad_projected, sums = run(grad_y, saved, *tensors)
    dA, dD, dbias = _split_sums(sums, A, D, delta_bias, groups=delta_bias.shape[:2].numel())
    # Here, not inside the operator, so that torch's compiler can fuse the sum with later operations.
    grad_u = by_route.unflatten(2, (u.shape[2], -1)).sum(3).to(u.dtype)
    return grad_u, grad_projected, dbias, dA, dD, None, None
