"""Optimizers by name, for the parameters of a model."""

import inspect
from collections.abc import Callable, Iterable

from torch import nn, optim

from mhsvm.registry import Registered, Registry

OPTIMIZERS: Registry[Callable[..., optim.Optimizer]] = Registry("optimizer")

# Optimizers with a fused GPU kernel in every version of torch that this package supports.
_FUSED = (optim.Adam, optim.AdamW, optim.SGD)
# Settings of a parameter group that determine how its steps are computed.
_EXECUTION = ("capturable", "fused", "foreach")


def register_optimizer(name: str) -> Callable[[Registered], Registered]:
    """Register a class or function (parameters, **arguments) -> optimizer under a name for `create_optimizer`.

    The arguments have defaults, which a config shows.

    Raises:
        ValueError: The name is taken.
    """
    return OPTIMIZERS.register(name)


for _constructor in (
    optim.ASGD,
    optim.Adadelta,
    optim.Adagrad,
    optim.Adam,
    optim.AdamW,
    optim.Adamax,
    optim.RMSprop,
    optim.Rprop,
    optim.SGD,
):
    OPTIMIZERS.add(_constructor.__name__, _constructor)


def list_optimizers() -> tuple[str, ...]:
    """Names that `create_optimizer` takes."""
    return tuple(sorted(OPTIMIZERS))


def create_optimizer(name: str, model: nn.Module, *, decay_all: bool = True, **arguments: object) -> optim.Optimizer:
    """Build an optimizer for the parameters of a model.

    Args:
        name: One of `list_optimizers()`.
        model: Its parameters are optimized, on the device where they are now.
        decay_all: False exempts A_log and D of the scans from weight decay, as Mamba's authors mark them.
        arguments: The constructor's own.
    Raises:
        ValueError: The name is unknown, or the constructor refuses an argument.
    """
    constructor = OPTIMIZERS[name]
    arguments |= _gpu_arguments(constructor) if next(model.parameters()).is_cuda else {}
    if decay_all or "weight_decay" not in arguments:
        return constructor(model.parameters(), **arguments)
    return constructor(_decay_groups(model.named_parameters()), **arguments)


def load_optimizer_state(optimizer: optim.Optimizer, state: dict) -> None:
    """Load the state of an optimizer of the same kind, perhaps of another device; execution settings stay."""
    groups = [
        saved | {key: group[key] for key in _EXECUTION if key in group}
        for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


def _gpu_arguments(constructor: Callable[..., optim.Optimizer]) -> dict[str, bool]:
    """Arguments that reduce the kernels of a step, and allow its capture in a CUDA graph if possible."""
    arguments = {"fused": True} if constructor in _FUSED else {}
    if "capturable" in inspect.signature(constructor).parameters:
        arguments["capturable"] = True
    return arguments


def _decay_groups(named_parameters: Iterable[tuple[str, nn.Parameter]]) -> list[dict]:
    groups: tuple[list, list] = ([], [])
    for name, parameter in named_parameters:
        groups[name.rpartition(".")[2] in ("A_log", "D")].append(parameter)
    decayed, exempt = groups
    return [{"params": decayed}] + ([{"params": exempt, "weight_decay": 0.0}] if exempt else [])
