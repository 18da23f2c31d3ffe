from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from mhsvm.ops.backends import find_backend
from mhsvm.ops.scan.selective_scan import SELECTIVE_SCAN


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests over the backends that scan on this CPU.

    Tests with `backend` run over all; with `dtype` also in float32 and float64, as far as a backend takes them. Tests
    with `automatic_backend` run over those that "auto" may choose.
    """
    cases = [
        (scan.backend, dtype)
        for scan in SELECTIVE_SCAN.implementations()
        for dtype in (torch.float32, torch.float64)
        if scan.reason_against(torch.ones(1, 1, 1, dtype=dtype), None, torch.ones(1, 1, dtype=dtype)) is None
    ]
    names = list(dict.fromkeys(name for name, _ in cases))
    if "dtype" in metafunc.fixturenames and "backend" in metafunc.fixturenames:
        metafunc.parametrize(("backend", "dtype"), cases)
    elif "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", names)
    if "automatic_backend" in metafunc.fixturenames:
        metafunc.parametrize("automatic_backend", [name for name in names if find_backend(name).automatic])


@pytest.fixture
def tolerance() -> dict[torch.dtype, float]:
    """Bounds of the relative error of a whole tensor against the reference in float64."""
    return {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}


@pytest.fixture
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """||x - ref|| / ||ref|| of the whole tensor; of zeros, the error itself."""

    def measure(x: Tensor, ref: Tensor) -> float:
        assert x.shape == ref.shape
        x, ref = x.detach().double(), ref.detach().double()
        scale = ref.norm().item()
        return (x - ref).norm().item() / (scale if scale > 0 else 1.0)

    return measure


@pytest.fixture
def scan_inputs() -> Callable[..., dict[str, Tensor]]:
    """Make the tensor arguments of a scan, as leaves that require gradients."""

    def make(
        *, b=2, d=8, n=3, length=100, groups=2, optional=("D", "z", "delta_bias"), dtype=torch.float64
    ) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(length + groups)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        inputs = {
            "u": normal(b, d, length),
            "delta": normal(b, d, length).abs() * 0.3,
            "A": -normal(d, n).exp(),
            "B": normal(b, groups, n, length),
            "C": normal(b, groups, n, length),
            "D": normal(d),
            "z": normal(b, d, length),
            "delta_bias": normal(d).abs() * 0.1,
        }
        required = ("u", "delta", "A", "B", "C")
        return {name: inputs[name].to(dtype).requires_grad_() for name in inputs if name in required + tuple(optional)}

    return make


@pytest.fixture
def outputs_and_gradients() -> Callable[..., dict[str, Tensor]]:
    """Run a scan forward and backward from seeded gradients of its output and last state; all tensors by name."""

    def run(scan: Callable, inputs: dict[str, Tensor], **options) -> dict[str, Tensor]:
        y, state = scan(**inputs, return_last_state=True, **options)
        generator = torch.Generator().manual_seed(0)
        grads = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in (y, state)]
        gradients = torch.autograd.grad((y, state), tuple(inputs.values()), grads)
        return {"y": y, "state": state} | {f"gradient of {k}": g for k, g in zip(inputs, gradients, strict=True)}

    return run


@pytest.fixture
def _poisoned_memory() -> Iterator[None]:
    """Fill new tensors of `torch.empty` with NaN, so that a number that is never written is found."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
