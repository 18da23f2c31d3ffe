"""The training loop.

All randomness of an epoch's data comes from one generator, whose state at the epoch's start is part of every
checkpoint: an epoch that was left half-way is drawn again exactly and entered where it was left.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset
from mhsvm.engine.checkpoint import save_checkpoint
from mhsvm.engine.evaluator import Evaluation, evaluate
from mhsvm.engine.run_folder import Recorder, RunFolder
from mhsvm.engine.step import NonFiniteLoss, optimizer_step
from mhsvm.engine.stop import StopSignal

log = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where it stopped and what to try."""


class Interrupted(RuntimeError):
    """A signal asked for a stop, and a checkpoint to resume from has been written."""


@dataclass(frozen=True)
class Job:
    """The objects and settings of a training.

    Attributes:
        description: What every checkpoint records besides the state: config, data, version.
        generator: Source of order and augmentation; on the CPU.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    loss: nn.Module
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
    clip_norm: float
    precision: torch.dtype
    eval_batch_size: int
    threshold: float


@dataclass
class Progress:
    """Where a training is.

    Attributes:
        epoch: Epochs that are done.
        position: Images done in the epoch under way.
        loss_sum: Sum of their losses.
        data_state: State of the job's generator at the start of the epoch under way.
        best_loss: Lowest validation loss so far.
        history: The figures of each epoch that is done.
    """

    data_state: Tensor
    epoch: int = 0
    position: int = 0
    loss_sum: float = 0.0
    best_loss: float = math.inf
    history: list[dict] = field(default_factory=list)


def train(job: Job, progress: Progress, run: RunFolder, stop: StopSignal) -> None:
    """Train until `job.epochs` epochs are done, validating, recording and saving after each.

    Raises:
        TrainingError: The loss is not finite, or memory does not suffice.
        Interrupted: `stop` got a signal; the last checkpoint holds the position.
    """
    recorder = Recorder(run, progress.history)
    bar = tqdm(total=job.epochs * len(job.train_set), unit="img", disable=None, dynamic_ncols=True)
    bar.update(progress.epoch * len(job.train_set) + progress.position)

    def check_stop() -> None:
        if stop.signum is not None:
            save_checkpoint(run.last, checkpoint_content(job, progress))
            raise Interrupted

    def on_step(num_images: int, value: float) -> None:
        bar.set_postfix(epoch=progress.epoch + 1, loss=f"{value:.4f}", refresh=False)
        bar.update(num_images)
        check_stop()

    try:
        save_checkpoint(run.last, checkpoint_content(job, progress))
        while progress.epoch < job.epochs:
            train_epoch(job, progress, on_step)
            evaluation = validate(job, check_stop)
            improved = close_epoch(job, progress, evaluation)
            recorder.add(progress.history[-1])
            content = checkpoint_content(job, progress)
            if improved:
                save_checkpoint(run.best, content)
            save_checkpoint(run.last, content)
            log.info(_epoch_line(progress, job.epochs, improved))
    except NonFiniteLoss as error:
        raise TrainingError(_non_finite_message(job, progress, run, error)) from error
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise TrainingError(_out_of_memory_message(job)) from error
    finally:
        bar.close()
        recorder.close()


def train_epoch(job: Job, progress: Progress, on_step: Callable[[int, float], None]) -> None:
    """Do what is left of the epoch under way; `on_step` gets the images and the loss of each optimiser step."""
    job.model.train()
    job.generator.set_state(progress.data_state)
    order = torch.randperm(len(job.train_set), generator=job.generator)
    motions = job.augment.draw(len(job.train_set), job.generator)
    window = job.batch_size * job.accumulation
    for start in range(progress.position, len(order), window):
        rows = order[start : start + window]
        value = optimizer_step(
            job.model,
            job.optimizer,
            job.train_set,
            rows,
            motions[start : start + window],
            augment=job.augment,
            loss=job.loss,
            batch_size=job.batch_size,
            clip_norm=job.clip_norm,
            precision=job.precision,
            device=job.device,
        )
        progress.position += len(rows)
        progress.loss_sum += value * len(rows)
        on_step(len(rows), value)


def validate(job: Job, on_batch: Callable[[], None]) -> Evaluation:
    """Evaluate on the validation part; `on_batch` is called after each batch."""
    return evaluate(
        job.model,
        job.val_set,
        augment=job.val_augment,
        loss=job.loss,
        threshold=job.threshold,
        batch_size=job.eval_batch_size,
        device=job.device,
        on_batch=lambda rows, probability: on_batch(),
    )


def close_epoch(job: Job, progress: Progress, evaluation: Evaluation) -> bool:
    """Put the epoch's figures into the history, step the schedule, and say whether its validation loss is the best.

    Raises:
        TrainingError: The validation loss is not finite.
    """
    if not math.isfinite(evaluation.loss):
        raise TrainingError(
            f"the validation loss of epoch {progress.epoch + 1} is {evaluation.loss}: the weights have diverged; "
            "the last checkpoint is from before this epoch. Try a lower learning rate or train.clip_norm 1"
        )
    figures = {"epoch": progress.epoch + 1, "lr": job.optimizer.param_groups[0]["lr"]}
    figures["train_loss"] = progress.loss_sum / len(job.train_set)
    figures |= {f"val_{name}": value for name, value in evaluation.figures().items()}
    progress.history.append(figures)
    if isinstance(job.schedule, ReduceLROnPlateau):
        job.schedule.step(evaluation.loss)
    else:
        job.schedule.step()
    improved = evaluation.loss < progress.best_loss
    progress.best_loss = min(progress.best_loss, evaluation.loss)
    progress.epoch += 1
    progress.position, progress.loss_sum = 0, 0.0
    progress.data_state = job.generator.get_state()
    return improved


def checkpoint_content(job: Job, progress: Progress) -> dict:
    """Everything that testing and resuming need."""
    random_states = {"cpu": torch.get_rng_state()}
    if job.device.type == "cuda":
        random_states["cuda"] = torch.cuda.get_rng_state(job.device)
    return {
        **job.description,
        "model": job.model.state_dict(),
        "training": {
            "optimizer": job.optimizer.state_dict(),
            "schedule": job.schedule.state_dict(),
            "random_states": random_states,
            "progress": dict(vars(progress)),
        },
    }


def restore(job: Job, training: dict) -> Progress:
    """Put a job back to where the `training` part of a checkpoint left it; the weights are loaded already."""
    job.optimizer.load_state_dict(training["optimizer"])
    # torch notes on the optimiser, not in its state, that it has stepped, and warns when a schedule sees no note
    job.optimizer._opt_called = True
    # milestones are a setting, not a state; the checkpoint holds them as a plain dictionary
    job.schedule.load_state_dict({k: v for k, v in training["schedule"].items() if k != "milestones"})
    torch.set_rng_state(training["random_states"]["cpu"])
    if job.device.type == "cuda" and "cuda" in training["random_states"]:
        torch.cuda.set_rng_state(training["random_states"]["cuda"], job.device)
    return Progress(**training["progress"])


def _epoch_line(progress: Progress, epochs: int, improved: bool) -> str:
    figures = progress.history[-1]
    shown = ("lr", "train_loss", "val_loss", "val_miou", "val_dsc")
    line = ", ".join(f"{name} {figures[name]:.6g}" for name in shown)
    return f"epoch {progress.epoch}/{epochs}: {line}{' (best)' if improved else ''}"


def _non_finite_message(job: Job, progress: Progress, run: RunFolder, error: NonFiniteLoss) -> str:
    step = progress.position // (job.batch_size * job.accumulation) + 1
    ids = ", ".join(job.train_set.ids[row] for row in error.rows.tolist())
    return (
        f"the loss is {error.value} at epoch {progress.epoch + 1}, step {step}, on the images {ids}; "
        f"the last good checkpoint is {run.last}. Try a lower learning rate or train.clip_norm 1"
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
    # torch has no class of its own for the CPU's
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _out_of_memory_message(job: Job) -> str:
    height, width = job.train_set.images.shape[1:3]
    smaller = max(1, job.batch_size // 2)
    advice = f"train.batch_size {smaller} train.accumulation {job.accumulation * (job.batch_size // smaller)}"
    return (
        f"memory does not suffice on {job.device} for train.batch_size {job.batch_size}, train.accumulation "
        f"{job.accumulation}, images of {height} x {width}: try {advice} (the same steps), evaluation.batch_size "
        f"{max(1, job.eval_batch_size // 2)}, or a set prepared at --size {height // 2 // 32 * 32 or 32}"
    )
