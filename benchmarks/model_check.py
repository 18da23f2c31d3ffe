"""How far a network on some backend is from the same network on the reference in float64: the check before a timing."""

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

# Images of the check: the reference takes a step a cell, so they are small.
CHECK_BATCH, CHECK_SIZE = 2, 64

# Largest relative errors of the output and of a parameter's gradient, by the type that a network runs in.
OUTPUT_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
GRADIENT_LIMITS = {torch.float32: 2e-3, torch.bfloat16: 2e-2}
# A draw in which no cell has four nearly equal routes: the gate's gradient there would amplify rounding to 1e-2.
_SEED = 1
# A tensor of cancelling terms is far from float64 on any backend: this many times the reference's own error there, or
# its error in the average gradient where that is greater.
_ALLOWANCES = {torch.float32: 2.0, torch.bfloat16: 4.0}
# In 16 bits a single gradient's error is drawn anew by every backend, and behind MHS-VM's gate from a wide
# distribution: the reference's own counts as the greatest of this many draws. Of seven draws of one network, each held
# against the greatest of four others, one in a hundred was over 3 times that, and none over 3.2; against a single one
# two in five were over 2 times. The average over gradients repeats within 10 %, and is held more closely.
_DRAWS = {torch.float32: 1, torch.bfloat16: 4}
_MEAN_ALLOWANCE, _OUTPUT_ALLOWANCE = 1.25, 2.0
_MEAN = "average gradient"
# Weights that differ by so much round differently.
_REDRAWN_BY = {torch.float32: 1e-7, torch.bfloat16: 1e-3}


class WrongNetwork(ValueError):
    """A network does not compute on a backend what it should; the message says where, and by how much."""


@dataclass(frozen=True)
class ModelTruth:
    """What a network gives on the reference: in float64, and how far from that it is in the type to be timed."""

    name: str
    state: dict[str, Tensor]
    images: Tensor
    exact: dict[str, Tensor]
    own_errors: dict[str, float]
    dtype: torch.dtype

    @classmethod
    def of(cls, name: str, *, dtype: torch.dtype, device: torch.device) -> "ModelTruth":
        """Draw weights and images, and run the network on the reference."""
        # on the CPU, so that every device draws the same
        torch.manual_seed(_SEED)
        model = create_model(name, backend="reference").eval()
        _spread_routes(model)
        images = 255 * torch.rand(CHECK_BATCH, 3, CHECK_SIZE, CHECK_SIZE)
        model, images = model.to(device), images.to(device)
        exact = _run(copy.deepcopy(model).double(), images.double(), dtype=torch.float64)
        draws = [_errors(_run(model, images, dtype=dtype), exact)]
        draws += [_redrawn_errors(name, model, images, dtype=dtype, seed=seed) for seed in range(1, _DRAWS[dtype])]
        own = {key: max(errors[key] for errors in draws) for key in draws[0]}
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
        """What the reference's own errors excuse."""
        if name == _MEAN:
            return _MEAN_ALLOWANCE * self.own_errors[_MEAN]
        if name == "output":
            return _OUTPUT_ALLOWANCE * self.own_errors[name]
        return _ALLOWANCES[self.dtype] * max(self.own_errors[name], self.own_errors[_MEAN])


def check_network(
    name: str, backends: Sequence[str], *, dtype: torch.dtype, device: torch.device
) -> dict[str, dict[str, float]]:
    """Relative errors of a network with fresh weights, by backend: see `ModelTruth.errors_of`.

    In 16 bits rounding hides what is wrong by less than itself. So a network passes in float32 first, in which the
    same kernels are held to limits closer by a factor of ten and more.

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


def redraw(model: nn.Module, *, dtype: torch.dtype, seed: int) -> None:
    """Change weights, in place, by so little that only what `dtype` makes of them is drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1 + _REDRAWN_BY[dtype] * torch.randn(weight.shape, generator=generator).to(weight.device)


def _spread_routes(model: nn.Module) -> None:
    """Let the routes of a head differ: with fresh weights they are so alike that the gate between them, a quotient of
    small differences, is rounding noise."""
    for module in model.modules():
        if isinstance(module, RouteS6):
            nn.init.uniform_(module.D, 0.5, 1.5)


def _redrawn_errors(name: str, model: nn.Module, images: Tensor, *, dtype: torch.dtype, seed: int) -> dict[str, float]:
    """What rounding does with slightly other weights; `chunked` rounds like the reference, and is quick."""
    redrawn = create_model(name, backend="chunked").to(images.device).eval()
    redrawn.load_state_dict(model.state_dict())
    redraw(redrawn, dtype=dtype, seed=seed)
    exact = _run(copy.deepcopy(redrawn).double(), images.double(), dtype=torch.float64)
    return _errors(_run(redrawn, images, dtype=dtype), exact)


def _run(model: nn.Module, images: Tensor, *, dtype: torch.dtype) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    with autocast(images.device, dtype):
        output = model(images)
    # whole numbers are the same in every type
    weights = (torch.arange(output.numel(), device=output.device) % 7 - 3).view_as(output)
    gradients = torch.autograd.grad((output * weights).sum(), tuple(parameters.values()))
    return {"output": output, **{f"gradient of {key}": g for key, g in zip(parameters, gradients, strict=True)}}


def _errors(tensors: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    errors = {name: relative_error(x, exact[name]) for name, x in tensors.items()}
    of_gradients = [error for name, error in errors.items() if name != "output"]
    return {**errors, _MEAN: sum(of_gradients) / len(of_gradients)}
