"""Learning-rate schedules by name: torch's own, and the two warm-ups that this field uses.

The warm-ups are `LambdaLR`, not `LinearLR` inside `SequentialLR`: milestones count from the start of training, the
cosine stays at its floor, and checkpoints hold a `LambdaLR`'s state, which `SequentialLR` cannot load.
"""

import math
from bisect import bisect_right
from collections.abc import Callable

from torch.optim import Optimizer, lr_scheduler

from mhsvm.registry import Registered, Registry

SCHEDULES: Registry[Callable[..., lr_scheduler.LRScheduler]] = Registry("schedule")


def register_schedule(name: str) -> Callable[[Registered], Registered]:
    """Register a class or function (optimizer, **arguments) -> schedule under a name for `create_schedule`.

    The arguments have defaults, which a config shows. The schedule is stepped once an epoch.

    Raises:
        ValueError: The name is taken.
    """
    return SCHEDULES.register(name)


for _constructor in (
    lr_scheduler.CosineAnnealingLR,
    lr_scheduler.CosineAnnealingWarmRestarts,
    lr_scheduler.ExponentialLR,
    lr_scheduler.MultiStepLR,
    lr_scheduler.ReduceLROnPlateau,
    lr_scheduler.StepLR,
):
    SCHEDULES.add(_constructor.__name__, _constructor)


def list_schedules() -> tuple[str, ...]:
    """Names that `create_schedule` takes."""
    return tuple(sorted(SCHEDULES))


def create_schedule(name: str, optimizer: Optimizer, **arguments: object) -> lr_scheduler.LRScheduler:
    """Build a schedule that is stepped once an epoch.

    Raises:
        ValueError: The name is unknown, or the constructor refuses an argument.
    """
    return SCHEDULES[name](optimizer, **arguments)


@register_schedule("WarmupCosineLR")
def warmup_cosine(optimizer: Optimizer, *, warmup_epochs: int, T_max: int, eta_min: float) -> lr_scheduler.LRScheduler:
    """Rise linearly over `warmup_epochs`, fall along half a cosine to `eta_min` at epoch `T_max`, stay there."""

    def factor_for(base_lr: float) -> Callable[[int], float]:
        floor = eta_min / base_lr

        def factor(epoch: int) -> float:
            if epoch < warmup_epochs:
                return (epoch + 1) / (warmup_epochs + 1)
            progress = min(1.0, (epoch - warmup_epochs) / max(1, T_max - warmup_epochs))
            return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2

        return factor

    return lr_scheduler.LambdaLR(optimizer, [factor_for(group["lr"]) for group in optimizer.param_groups])


@register_schedule("WarmupMultiStepLR")
def warmup_multi_step(
    optimizer: Optimizer, *, warmup_epochs: int, milestones: tuple[int, ...], gamma: float
) -> lr_scheduler.LRScheduler:
    """Rise linearly over `warmup_epochs`; multiply by `gamma` at every milestone, counted from the start."""

    def factor(epoch: int) -> float:
        return min(1.0, (epoch + 1) / (warmup_epochs + 1)) * gamma ** bisect_right(sorted(milestones), epoch)

    return lr_scheduler.LambdaLR(optimizer, factor)
