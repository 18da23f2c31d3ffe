"""The objects of a training, and its position."""

import math
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset
from mhsvm.runtime.distributed import ALONE, World
from mhsvm.training.step import TrainStep


@dataclass(frozen=True)
class Job:
    """The objects and settings of a training.

    Attributes:
        step: Trains `model` with `optimizer`, and updates the moving average of its weights if there is one.
        infer: The network that is validated: `model` or its moving average, on a GPU as a CUDA graph.
        description: The record in every checkpoint besides the state: config, data, version.
        generator: Source of order and augmentation; on the CPU.
        batch_size: Images of a batch in all processes together.
        tf32, deterministic: See `mhsvm.runtime.numerics`.
        notes: Automatic choices, in sentences for the log.
        warnings: Reasons why the training or its validation may say nothing, in sentences.
        world: The processes that train together.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    loss: nn.Module
    step: TrainStep
    infer: nn.Module
    train_set: Dataset
    val_set: Dataset
    augment: Augment
    val_augment: Augment
    generator: Generator
    device: torch.device
    description: dict
    epochs: int
    batch_size: int
    accumulation: int
    eval_batch_size: int
    threshold: float
    tf32: bool = False
    deterministic: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    world: World = ALONE

    @property
    def kept_model(self) -> nn.Module:
        """The network whose weights a checkpoint offers for use."""
        return self.model if self.step.average is None else self.step.average.model

    def fresh_progress(self) -> "Progress":
        """The position before the first epoch."""
        return Progress(data_state=self.generator.get_state())


@dataclass
class Progress:
    """The position of a training.

    Attributes:
        epoch: Epochs that are done.
        position: Images done in the current epoch.
        loss_sum: Sum of their losses.
        data_state: State of the job's generator at the start of the current epoch.
        best_loss: Lowest validation loss so far.
        history: The metrics of each finished epoch.
    """

    data_state: Tensor
    epoch: int = 0
    position: int = 0
    loss_sum: float = 0.0
    best_loss: float = math.inf
    history: list[dict] = field(default_factory=list)
