"""Check before a timing: the errors of a network on a backend against the reference in float64."""

import copy
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mhsvm.layers import RouteS6
from mhsvm.models import create_model
from mhsvm.ops.verify import relative_error

log = logging.getLogger(__name__)

# Images of the check; they are small because the reference takes one step per cell.
CHECK_BATCH, CHECK_SIZE = 2, 64

# Largest relative errors of the output and of a parameter's gradient, by the type that a network runs in.
OUTPUT_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
GRADIENT_LIMITS = {torch.float32: 2e-3, torch.bfloat16: 2e-2}
# With this seed no cell has four nearly equal routes, where the gate's gradient would amplify rounding to 1e-2.
_SEED = 1
# A sum of terms that cancel is inaccurate on every backend. The limit is this many times the error of the reference, or
# of its average gradient if that is greater.
_ALLOWANCES = {torch.float32: 2.0, torch.bfloat16: 4.0}
# In 16 bits the error of a single gradient is random, with a wide distribution after the gate of MHS-VM. So the error
# of the reference is the greatest of this many repetitions: one error in a hundred exceeds it 3 times, none 3.2 times.
# The average over gradients repeats within 10 % and has a tighter limit.
_REPETITIONS = {torch.float32: 1, torch.bfloat16: 4}
_MEAN_ALLOWANCE, _OUTPUT_ALLOWANCE = 1.25, 2.0
_MEAN = "average gradient"
# Relative change of weights after which they round differently.
_PERTURBATION = {torch.float32: 1e-7, torch.bfloat16: 1e-3}


class WrongNetwork(ValueError):
    """A network gives wrong results on a backend; the message names the tensor and its error."""


@dataclass(frozen=True)
class ModelTruth:
    """Results of a network on the reference in float64, and errors of the reference in the type to be timed."""

    name: str
    state: dict[str, Tensor]
    images: Tensor
    exact: dict[str, Tensor]
    own_errors: dict[str, float]
    dtype: torch.dtype

    @classmethod
    def of(cls, name: str, *, dtype: torch.dtype, device: torch.device) -> "ModelTruth":
        """Initialize weights and images, and run the network on the reference."""
        # on the CPU, so that every device has the same
        torch.manual_seed(_SEED)
        model = create_model(name, backend="reference").eval()
        _spread_routes(model)
        images = 255 * torch.rand(CHECK_BATCH, 3, CHECK_SIZE, CHECK_SIZE)
        model, images = model.to(device), images.to(device)
        exact = _run(copy.deepcopy(model).double(), images.double(), dtype=torch.float64)
        repeated = [_errors(_run(model, images, dtype=dtype), exact)]
        repeated += [
            _perturbed_errors(name, model, images, dtype=dtype, seed=seed) for seed in range(1, _REPETITIONS[dtype])
        ]
        own = {key: max(errors[key] for errors in repeated) for key in repeated[0]}
        return cls(name, model.state_dict(), images, exact, own, dtype)

    def errors_of(self, backend: str) -> dict[str, float]:
        """Relative errors on a backend: of the output, of each parameter's gradient, and these on average.

        Raises:
            WrongNetwork: One is over its limit.
        """
        model = create_model(self.name, backend=backend).to(self.images.device).eval()
        model.load_state_dict(self.state)
        errors = _errors(_run(model, self.images, dtype=self.dtype), self.exact)
        for name, error in errors.items():
            limit = (OUTPUT_LIMITS if name == "output" else GRADIENT_LIMITS)[self.dtype]
            limit = max(limit, self._allowed(name))
            # not the other way round: NaN is no pass
            if not error <= limit:
                raise WrongNetwork(
                    f"{self.name} on backend {backend!r} is wrong and not timed: its {name} is off by {error:.1e} of "
                    f"its norm against the reference; the limit is {limit:.0e}"
                )
        log.info(
            "%s in %s on backend %r: output off by %.1e, gradients by %.1e on average (reference: %.1e, %.1e)",
            *(self.name, str(self.dtype).removeprefix("torch."), backend, errors["output"], errors[_MEAN]),
            *(self.own_errors["output"], self.own_errors[_MEAN]),
        )
        return errors

    def _allowed(self, name: str) -> float:
        """Limit that follows from the errors of the reference."""
        if name == _MEAN:
            return _MEAN_ALLOWANCE * self.own_errors[_MEAN]
        if name == "output":
            return _OUTPUT_ALLOWANCE * self.own_errors[name]
        return _ALLOWANCES[self.dtype] * max(self.own_errors[name], self.own_errors[_MEAN])


def check_network(
    name: str, backends: Sequence[str], *, dtype: torch.dtype, device: torch.device
) -> dict[str, dict[str, float]]:
    """Relative errors of a network with fresh weights, by backend: see `ModelTruth.errors_of`.

    In 16 bits rounding hides smaller errors. So a network has to pass in float32 first, where the limits of the same
    kernels are at least ten times tighter.

    Raises:
        WrongNetwork: One is over its limit.
    """
    for held in dict.fromkeys((torch.float32, dtype)):
        truth = ModelTruth.of(name, dtype=held, device=device)
        errors = {backend: truth.errors_of(backend) for backend in backends}
    return errors


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Run a network in bfloat16 where that is safe; float32 and float64 are left alone."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def perturb(model: nn.Module, *, dtype: torch.dtype, seed: int) -> None:
    """Change weights, in place, by so little that only their rounding in `dtype` differs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1 + _PERTURBATION[dtype] * torch.randn(weight.shape, generator=generator).to(weight.device)


def _spread_routes(model: nn.Module) -> None:
    """Make the routes of a head differ: with fresh weights the gate would be rounding noise."""
    for module in model.modules():
        if isinstance(module, RouteS6):
            nn.init.uniform_(module.D, 0.5, 1.5)


def _perturbed_errors(
    name: str, model: nn.Module, images: Tensor, *, dtype: torch.dtype, seed: int
) -> dict[str, float]:
    """Errors with slightly different weights; `chunked` rounds like the reference, and is fast."""
    perturbed = create_model(name, backend="chunked").to(images.device).eval()
    perturbed.load_state_dict(model.state_dict())
    perturb(perturbed, dtype=dtype, seed=seed)
    exact = _run(copy.deepcopy(perturbed).double(), images.double(), dtype=torch.float64)
    return _errors(_run(perturbed, images, dtype=dtype), exact)


def _run(model: nn.Module, images: Tensor, *, dtype: torch.dtype) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    with autocast(images.device, dtype):
        output = model(images)
    # integers are exact in every type
    weights = (torch.arange(output.numel(), device=output.device) % 7 - 3).view_as(output)
    gradients = torch.autograd.grad((output * weights).sum(), tuple(parameters.values()))
    return {"output": output, **{f"gradient of {key}": g for key, g in zip(parameters, gradients, strict=True)}}


def _errors(tensors: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    errors = {name: relative_error(x, exact[name]) for name, x in tensors.items()}
    of_gradients = [error for name, error in errors.items() if name != "output"]
    return {**errors, _MEAN: sum(of_gradients) / len(of_gradients)}
