"""How far a backend is from the reference: the check before a timing, and the doctor's.

b batch, d channels, l steps, g groups of channels that share B and C, n state size, m heads, k routes of a head,
r rank of the step-size projection.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mhsvm.ops.routes.route_scan import composed_route_scan
from mhsvm.ops.scan import reference

# Largest relative error of a whole tensor, ||x - ref|| / ||ref||, by the type of the inputs.
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}

# Arguments with one entry a sample; the others are shared by the batch.
_BATCHED = ("u", "delta", "B", "C", "z", "x_dbl")


@dataclass(frozen=True)
class ScanShape:
    """Sizes of a selective scan: b sequences of l steps and d channels, B and C in g groups, n numbers of state."""

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
    """Arguments of a selective scan with softplus, as a trained network has them: steps of about 0.01 to 0.3.

    Returns:
        u, delta, B, C and, with `gate`, z in `dtype`; A, D and delta_bias in float32 at least.
    """
    b, d, length, g, n = shape.b, shape.d, shape.l, shape.g, shape.n
    generator = torch.Generator(device).manual_seed(seed)
    normal = partial(torch.randn, generator=generator, device=device, dtype=torch.float32)
    inputs = {
        "u": normal(b, d, length),
        "delta": normal(b, d, length),
        "A": -normal(d, n).exp(),
        "B": normal(b, g, n, length),
        "C": normal(b, g, n, length),
        "D": normal(d),
        "delta_bias": normal(d) - 3,
    }
    if gate:
        inputs["z"] = normal(b, d, length)
    parameter_dtype = torch.promote_types(dtype, torch.float32)
    return {name: x.to(dtype if name in _BATCHED else parameter_dtype) for name, x in inputs.items()}


@dataclass(frozen=True)
class Truth:
    """What the reference gives for the first and the last sample of a batch, in float64.

    Attributes:
        samples: Their positions. Only they get a gradient, so that it finishes on batches of any size.
        seed: Gradient of the output at these samples.
        y: The output at these samples.
        gradients: Of every argument by name: those of a sample at these samples, of what the batch shares whole.
    """

    samples: tuple[int, ...]
    seed: Tensor
    y: Tensor
    gradients: dict[str, Tensor]

    @classmethod
    def of(cls, reference_scan: Callable[..., Tensor], inputs: Mapping[str, Tensor]) -> "Truth":
        """Run the reference with these inputs and a gradient drawn for its output."""
        samples = tuple(sorted({0, inputs["u"].shape[0] - 1}))
        leaves = {name: _at(samples, name, x).detach().double().requires_grad_() for name, x in inputs.items()}
        y = reference_scan(**leaves)
        generator = torch.Generator(y.device).manual_seed(len(samples))
        # whole numbers are the same in every type
        seed = torch.randint(-3, 4, y.shape, generator=generator, device=y.device, dtype=y.dtype)
        gradients = torch.autograd.grad(y, tuple(leaves.values()), seed)
        return cls(samples, seed, y.detach(), dict(zip(leaves, gradients, strict=True)))

    def errors_of(self, scan: Callable[..., Tensor], inputs: Mapping[str, Tensor]) -> dict[str, float]:
        """Relative errors of a scan of the whole batch: of its output and of each gradient."""
        leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
        y = scan(**leaves)
        at = list(self.samples)
        seed = torch.zeros_like(y)
        seed[at] = self.seed.to(y.dtype)
        gradients = torch.autograd.grad(y, tuple(leaves.values()), seed)
        errors = {"y": relative_error(y[at], self.y)}
        for name, gradient in zip(leaves, gradients, strict=True):
            errors[f"gradient of {name}"] = relative_error(_at(at, name, gradient), self.gradients[name])
        return errors


def scan_truth(inputs: Mapping[str, Tensor]) -> Truth:
    """The truth of a selective scan with softplus."""
    return Truth.of(partial(reference.selective_scan, delta_softplus=True), inputs)


def make_route_scan_inputs(
    *, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Arguments of a scan along routes, and its shuffled routes: a small map, two heads of four routes."""
    b, cells, m, k, d, n, r = 2, 77, 2, 4, 12, 16, 2
    generator = torch.Generator(device).manual_seed(seed)
    normal = partial(torch.randn, generator=generator, device=device, dtype=torch.float32)
    order = torch.rand(m, k, cells, generator=generator, device=device).argsort(dim=-1)
    inputs = {
        "u": normal(b, cells, m, d).to(dtype),
        "x_dbl": normal(b, cells, m, k, r + 2 * n).to(dtype),
        "dt_weight": normal(m, k, d, r),
        "dt_bias": normal(m, k, d) - 3,
        "A": -normal(m, k, d, n).exp(),
        "D": normal(m, k, d),
    }
    return inputs, {"order": order, "inverse": order.argsort(dim=-1)}


def route_scan_truth(inputs: Mapping[str, Tensor], routes: Mapping[str, Tensor]) -> Truth:
    """The truth of a scan along routes."""
    return Truth.of(partial(composed_route_scan, scan=reference.selective_scan, **routes), inputs)


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
