"""Optimisers and schedules by name: torch's own, and the two warm-ups that this field uses."""

import inspect
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable

from torch import nn, optim
from torch.optim import lr_scheduler

_OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    constructor.__name__: constructor
    for constructor in (
        optim.Adadelta,
        optim.Adagrad,
        optim.Adam,
        optim.AdamW,
        optim.Adamax,
        optim.ASGD,
        optim.RMSprop,
        optim.Rprop,
        optim.SGD,
    )
}
# Those that torch can step on a GPU in one kernel, in every version that this package supports.
_FUSED = (optim.Adam, optim.AdamW, optim.SGD)
# Settings of a parameter group that say how its steps are computed, not what they are.
_EXECUTION = ("capturable", "fused", "foreach")
_SCHEDULES: dict[str, Callable[..., lr_scheduler.LRScheduler]] = {
    constructor.__name__: constructor
    for constructor in (
        lr_scheduler.StepLR,
        lr_scheduler.MultiStepLR,
        lr_scheduler.ExponentialLR,
        lr_scheduler.CosineAnnealingLR,
        lr_scheduler.ReduceLROnPlateau,
        lr_scheduler.CosineAnnealingWarmRestarts,
    )
}


def register_schedule(function: Callable[..., lr_scheduler.LRScheduler]):
    """Register a function (optimizer, **arguments) -> schedule under its own name."""
    return _SCHEDULES.setdefault(function.__name__, function)


def list_optimizers() -> tuple[str, ...]:
    """Names that `create_optimizer` takes."""
    return tuple(sorted(_OPTIMIZERS))


def list_schedules() -> tuple[str, ...]:
    """Names that `create_schedule` takes."""
    return tuple(sorted(_SCHEDULES))


def constructor_arguments(name: str) -> tuple[str, ...]:
    """Argument names of a registered optimiser or schedule, without the object it works on."""
    constructor = _OPTIMIZERS.get(name) or _SCHEDULES[name]
    return tuple(inspect.signature(constructor).parameters)[1:]


def create_optimizer(name: str, model: nn.Module, *, decay_all: bool = True, **arguments: object) -> optim.Optimizer:
    """Build an optimiser for the parameters of a model.

    Args:
        name: One of `list_optimizers()`.
        model: Its parameters are optimised, on the device where they are now.
        decay_all: False exempts A_log and D of the scans from weight decay, as Mamba's authors mark them.
        arguments: The constructor's own.
    Raises:
        ValueError: The name is unknown, or the constructor refuses an argument.
    """
    if name not in _OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; known: {', '.join(list_optimizers())}")
    constructor = _OPTIMIZERS[name]
    arguments |= _gpu_arguments(constructor) if next(model.parameters()).is_cuda else {}
    if decay_all or "weight_decay" not in arguments:
        return constructor(model.parameters(), **arguments)
    return constructor(_decay_groups(model.named_parameters()), **arguments)


def load_optimizer_state(optimizer: optim.Optimizer, state: dict) -> None:
    """Load what an optimiser of the same kind saved, perhaps on another device: how to compute stays as it is here."""
    groups = [
        saved | {key: group[key] for key in _EXECUTION if key in group}
        for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


def create_schedule(name: str, optimizer: optim.Optimizer, **arguments: object) -> lr_scheduler.LRScheduler:
    """Build a schedule that is stepped once an epoch.

    Raises:
        ValueError: The name is unknown, or the constructor refuses an argument.
    """
    if name not in _SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; known: {', '.join(list_schedules())}")
    return _SCHEDULES[name](optimizer, **arguments)


@register_schedule
def WarmupMultiStepLR(
    optimizer: optim.Optimizer, *, warmup_epochs: int, milestones: tuple[int, ...], gamma: float
) -> lr_scheduler.LRScheduler:
    """Rise linearly over `warmup_epochs`; multiply by `gamma` at every milestone, counted from the start."""

    def factor(epoch: int) -> float:
        return min(1.0, (epoch + 1) / (warmup_epochs + 1)) * gamma ** bisect_right(sorted(milestones), epoch)

    return lr_scheduler.LambdaLR(optimizer, factor)


@register_schedule
def WarmupCosineLR(
    optimizer: optim.Optimizer, *, warmup_epochs: int, T_max: int, eta_min: float
) -> lr_scheduler.LRScheduler:
    """Rise linearly over `warmup_epochs`, fall along half a cosine to `eta_min` at epoch `T_max`, stay there."""

    def factor_for(base_lr: float) -> Callable[[int], float]:
        floor = eta_min / base_lr

        def factor(epoch: int) -> float:
            if epoch < warmup_epochs:
                return (epoch + 1) / (warmup_epochs + 1)
            share = min(1.0, (epoch - warmup_epochs) / max(1, T_max - warmup_epochs))
            return floor + (1 - floor) * (1 + math.cos(math.pi * share)) / 2

        return factor

    return lr_scheduler.LambdaLR(optimizer, [factor_for(group["lr"]) for group in optimizer.param_groups])


def _gpu_arguments(constructor: type[optim.Optimizer]) -> dict[str, bool]:
    """What lets an optimiser step in few kernels, inside a CUDA graph if it can."""
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
