"""Inputs of the training benchmarks: a network with fresh weights, its step, a random batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mhsvm.data.augment import Augment
from mhsvm.losses import create_loss
from mhsvm.models import create_model
from mhsvm.models.registry import MODELS
from mhsvm.training.optimizers import create_optimizer
from mhsvm.training.step import TrainStep


def choose_models(names: Sequence[str] | None) -> tuple[str, ...]:
    """The networks to time; if none is named, all that are written here, which take a backend.

    Raises:
        ValueError: A name is unknown; raised before anything is timed.
    """
    chosen = tuple(names or (name for name in sorted(MODELS) if MODELS[name].formats))
    for name in chosen:
        create_model(name)
    return chosen


def fresh_step(
    model: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    mode: str,
    prepare: Augment | None = None,
    sum_up: Callable[[Sequence[Tensor]], None] | None = None,
) -> TrainStep:
    """The step of a training by the published recipes, AdamW on BCE + Dice; weights are the same at every call.

    Args:
        model: Name of a network.
        device: Where it trains.
        dtype: float32, or bfloat16 for autocast.
        mode, prepare, sum_up: See `TrainStep`.
    """
    torch.manual_seed(0)
    network = create_model(model).to(device).train()
    loss = create_loss("bce_dice").to(device)
    optimizer = create_optimizer("AdamW", network)
    return TrainStep(network, optimizer, loss, prepare=prepare, mode=mode, precision=dtype, sum_up=sum_up)


def random_batch(num: int, size: int) -> tuple[Tensor, Tensor]:
    """Images (num, 3, size, size) in 0..255 and targets (num, 1, size, size), on the CPU, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(num, 3, size, size, generator=generator)
    return images, (torch.rand(num, 1, size, size, generator=generator) < 0.2).float()
