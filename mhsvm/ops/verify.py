"""Errors of a backend against the reference: the check of `mhsvm doctor`, and of a benchmark before it times.

Letters are those of `mhsvm.ops`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mhsvm.ops.routes.route_scan import route_scan_reference
from mhsvm.ops.scan import reference

# Largest relative error of a whole tensor, ||x - ref|| / ||ref||, by the type of the inputs.
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}

# Arguments with one entry a sample; the batch shares the others.
_BATCHED = ("u", "delta", "B", "C", "z")


@dataclass(frozen=True)
class ScanShape:
    """Sizes b, d, l, g and n of a selective scan."""

    b: int
    d: int
    l: int  # noqa: E741
    g: int
    n: int = 16

    def __post_init__(self) -> None:
        if min(self.b, self.d, self.l, self.g, self.n) < 1 or self.d % self.g:
            raise ValueError(f"the sizes b,d,l,g of a scan are at least 1 and g divides d, got {self}")

    def __str__(self) -> str:
        return f"{self.b},{self.d},{self.l},{self.g}"


def make_scan_inputs(
    shape: ScanShape, *, dtype: torch.dtype, device: torch.device, gate: bool = False, seed: int = 0
) -> dict[str, Tensor]:
    """Make arguments of a selective scan with softplus, like those of a trained network: delta is about 0.01 to 0.3.

    Returns:
        u, delta and, with `gate`, z (b, l, d), B and C (b, l, g, n) in `dtype`; A (d, n), D and delta_bias (d) in
        float32 or float64.
    """
    b, d, length, g, n = shape.b, shape.d, shape.l, shape.g, shape.n
    generator = torch.Generator(device).manual_seed(seed)
    normal = partial(torch.randn, generator=generator, device=device, dtype=torch.float32)
    inputs = {
        "u": normal(b, length, d),
        "delta": normal(b, length, d),
        "A": -normal(d, n).exp(),
        "B": normal(b, length, g, n),
        "C": normal(b, length, g, n),
        "D": normal(d),
        "delta_bias": normal(d) - 3,
    }
    if gate:
        inputs["z"] = normal(b, length, d)
    parameter_dtype = torch.promote_types(dtype, torch.float32)
    return {name: x.to(dtype if name in _BATCHED else parameter_dtype) for name, x in inputs.items()}


@dataclass(frozen=True)
class Expected:
    """Results of the reference for the first and the last sample of a batch, in float64.

    Attributes:
        samples: Positions of these samples. Only they get a gradient, so that it finishes on batches of any size.
        grad_y: Gradient of the output at these samples.
        y: Output at these samples.
        gradients: Gradients of the arguments by name; those with one entry a sample at these samples.
    """

    samples: tuple[int, ...]
    grad_y: Tensor
    y: Tensor
    gradients: dict[str, Tensor]

    @classmethod
    def of(
        cls, reference_scan: Callable[..., Tensor | tuple[Tensor, Tensor]], inputs: Mapping[str, Tensor]
    ) -> "Expected":
        """Run the reference on these inputs, and backward from a random gradient of its output."""
        samples = tuple(sorted({0, inputs["u"].shape[0] - 1}))
        leaves = {name: _at(samples, name, x).detach().double().requires_grad_() for name, x in inputs.items()}
        y = reference_scan(**leaves)
        assert isinstance(y, Tensor), "the last state is not checked"
        generator = torch.Generator(y.device).manual_seed(len(samples))
        # integers are exact in every type
        grad_y = torch.randint(-3, 4, y.shape, generator=generator, device=y.device, dtype=y.dtype)
        gradients = torch.autograd.grad(y, tuple(leaves.values()), grad_y)
        return cls(samples, grad_y, y.detach(), dict(zip(leaves, gradients, strict=True)))

    def errors_of(self, scan: Callable[..., Tensor], inputs: Mapping[str, Tensor]) -> dict[str, float]:
        """Relative errors of a scan of the whole batch: of its output and of each gradient."""
        leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
        y = scan(**leaves)
        at = list(self.samples)
        grad_y = torch.zeros_like(y)
        grad_y[at] = self.grad_y.to(y.dtype)
        gradients = torch.autograd.grad(y, tuple(leaves.values()), grad_y)
        errors = {"y": relative_error(y[at], self.y)}
        for name, gradient in zip(leaves, gradients, strict=True):
            errors[f"gradient of {name}"] = relative_error(_at(at, name, gradient), self.gradients[name])
        return errors


def expected_scan(inputs: Mapping[str, Tensor]) -> Expected:
    """The expected results of a selective scan with softplus."""
    return Expected.of(partial(reference.selective_scan, delta_softplus=True), inputs)


def make_route_scan_inputs(
    *, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Make arguments of a scan along routes, and random routes: a small map, two heads of four routes."""
    b, cells, m, k, d, n, r = 2, 77, 2, 4, 12, 16, 2
    generator = torch.Generator(device).manual_seed(seed)
    normal = partial(torch.randn, generator=generator, device=device, dtype=torch.float32)
    order = torch.rand(m, k, cells, generator=generator, device=device).argsort(dim=-1)
    inputs = {
        "u": normal(b, cells, m, d).to(dtype),
        # In the type of the values, so that a product of 16 bits is rounded alike by every backend.
        "x_proj": normal(m, k, r + 2 * n, d).to(dtype) * d**-0.5,
        "delta_proj": normal(m, k, d, r),
        "delta_bias": normal(m, k, d) - 3,
        "A": -normal(m, k, d, n).exp(),
        "D": normal(m, k, d),
    }
    return inputs, {"order": order, "inverse": order.argsort(dim=-1)}


def expected_route_scan(inputs: Mapping[str, Tensor], routes: Mapping[str, Tensor]) -> Expected:
    """The expected results of a scan along routes."""
    order, inverse = routes["order"], routes["inverse"]
    scan = partial(route_scan_reference, scan=reference.selective_scan, order=order, inverse=inverse)
    return Expected.of(scan, inputs)


def worst(errors: Mapping[str, float]) -> tuple[str, float]:
    """Name and size of the largest error; NaN is larger than any number."""
    return max(errors.items(), key=lambda item: (item[1] != item[1], item[1]))


def relative_error(x: Tensor, ref: Tensor) -> float:
    """||x - ref|| / ||ref|| of the whole tensor; of zeros, the error itself."""
    x, ref = x.detach().double(), ref.detach().double()
    scale = ref.norm().item()
    return (x - ref).norm().item() / (scale or 1.0)


def _at(samples: Sequence[int], name: str, x: Tensor) -> Tensor:
    return x[list(samples)] if name in _BATCHED else x
