"""The training loop.

All randomness of an epoch's data comes from one generator, whose state at the epoch's start is part of every
checkpoint: an epoch that was left half-way is drawn again exactly and entered where it was left. Several processes draw
the same, see `mhsvm.engine.distributed`.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset
from mhsvm.data.loader import Batch, iterate_batches, upload
from mhsvm.engine.checkpoint import save_checkpoint
from mhsvm.engine.distributed import ALONE, World
from mhsvm.engine.evaluator import Evaluation, evaluate
from mhsvm.engine.hardware import device_model
from mhsvm.engine.numerics import numerics
from mhsvm.engine.optim import load_optimizer_state
from mhsvm.engine.run_folder import Recorder, RunFolder
from mhsvm.engine.step import TrainStep
from mhsvm.engine.step_log import StepLog, StepRecord
from mhsvm.engine.stop import StopSignal

log = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where it stopped and what to try."""


class OutOfMemory(TrainingError):
    """Memory does not suffice, in this process and maybe in no other."""


class Interrupted(RuntimeError):
    """A signal asked for a stop; `train` has written a checkpoint to resume from."""


class NotFinite(RuntimeError):
    """The loss or the gradient of a step is NaN or infinite; neither it nor any step since has changed anything.

    Args:
        record: Of the step.
    """

    def __init__(self, record: StepRecord) -> None:
        super().__init__(f"a step is not finite: its loss is {record.loss}")
        self.record = record


@dataclass(frozen=True)
class Job:
    """The objects and settings of a training.

    Attributes:
        step: Trains `model` by `optimizer`, and averages its weights if they are to be averaged.
        infer: The network that is validated, kept and later tested, as it is run for that: `model` or its moving
            average, itself or in a graph.
        description: What every checkpoint records besides the state: config, data, version.
        generator: Source of order and augmentation; on the CPU.
        batch_size: Images of a batch in all processes together.
        tf32, deterministic: See `mhsvm.engine.numerics`.
        notes: What was chosen, in sentences for the log.
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
    world: World = ALONE

    @property
    def kept_model(self) -> nn.Module:
        """The network whose weights a checkpoint offers for use."""
        return self.model if self.step.average is None else self.step.average.model


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
        TrainingError: A loss or gradient is not finite, or memory does not suffice.
        Interrupted: `stop` got a signal, in any process; the last checkpoint holds the position.
        LostProcess: Another process has ended.
    """
    alone, writes = job.world.size == 1, job.world.is_first
    hardware = {"device": device_model(job.device), "processes": job.world.size, "torch": str(torch.__version__)}
    recorder = Recorder(run, progress.history, epochs=job.epochs, hardware=hardware) if writes else None
    hidden = None if writes else True
    bar = tqdm(total=job.epochs * len(job.train_set), unit="img", disable=hidden, dynamic_ncols=True)
    bar.update(progress.epoch * len(job.train_set) + progress.position)

    def on_step(record: StepRecord) -> None:
        bar.set_postfix(epoch=progress.epoch + 1, loss=f"{record.loss:.4f}", refresh=False)
        bar.update(record.num_images)

    def check_stop() -> None:
        if job.world.any(stop.signum is not None):
            raise Interrupted

    def save(*paths: Path) -> None:
        content = checkpoint_content(job, progress)
        for path in paths if writes else ():
            save_checkpoint(path, content)

    try:
        with out_of_memory_explained(job), numerics(tf32=job.tf32, deterministic=job.deterministic):
            save(run.last)
            while progress.epoch < job.epochs:
                speed = train_epoch(job, progress, on_step, check_stop)
                # processes evaluate different numbers of batches, so that none of these is the place for a decision
                evaluation = validate(job, check_stop if alone else lambda: None)
                improved = close_epoch(job, progress, evaluation)
                if recorder is not None:
                    recorder.add(progress.history[-1])
                save(*([run.best] if improved else []), run.last)
                log.info("%s; %s", _epoch_line(progress, job.epochs, improved), _cost(job, speed))
    except Interrupted:
        save(run.last)
        raise
    except NotFinite as error:
        raise TrainingError(_not_finite_message(job, progress, run, error.record)) from error
    finally:
        bar.close()
        if recorder is not None:
            recorder.close()


def train_epoch(
    job: Job,
    progress: Progress,
    on_step: Callable[[StepRecord], None] = lambda record: None,
    check_stop: Callable[[], None] = lambda: None,
) -> float:
    """Do what is left of the epoch under way.

    Args:
        on_step: Gets what is known of each step of the optimiser, in order; of a GPU's steps with some delay.
        check_stop: Called after each step; may raise Interrupted to stop there.
    Returns:
        Images trained on in a second.
    Raises:
        NotFinite: The loss or gradient of a step is not.
        Interrupted: `check_stop` did; `progress` holds what was done.
    """
    start, position = time.perf_counter(), progress.position
    job.model.train()
    job.generator.set_state(progress.data_state)
    order = torch.randperm(len(job.train_set), generator=job.generator)[position:]
    motions = job.augment.draw(len(job.train_set), job.generator)[position:]
    steps = StepLog(math.ceil(len(order) / job.batch_size), job.device, lockstep=job.world.size > 1)

    def settle(*, wait: bool) -> None:
        for record in steps.read(wait=wait):
            if record.halted:
                raise NotFinite(record)
            progress.position += record.num_images
            progress.loss_sum += record.loss * record.num_images
            on_step(record)

    try:
        for rows, batch, batch_motions, window in iterate_windows(job, order, motions):
            report = job.step(batch.images, batch.masks, batch_motions, **window)
            steps.add(report, rows, last=window["last"])
            if window["last"]:
                settle(wait=False)
                check_stop()
    except Interrupted:
        settle(wait=True)
        raise
    settle(wait=True)
    return (progress.position - position) / (time.perf_counter() - start)


def iterate_windows(job: Job, order: Tensor, motions: Tensor) -> Iterator[tuple[Tensor, Batch, Tensor, dict]]:
    """The rows of each batch, what of it falls to this process, its motions, and its place in its step's window.

    Args:
        order: int64 (n,), rows of the training set in the order in which they are trained on; on the CPU.
        motions: (n, 2, 2) of each, from `job.augment`.
    """
    if not len(order):
        # stopped between the last step and the validation
        return
    wholes = torch.arange(len(order)).split(job.batch_size)
    shares = [job.world.share(whole) for whole in wholes]
    # who has no image of a small last batch computes one that weighs nothing
    places = [share if len(share) else whole[:1] for share, whole in zip(shares, wholes, strict=True)]
    taken, own_size = torch.cat(places), len(places[0])
    batches = iterate_batches(job.train_set, order[taken], batch_size=own_size, device=job.device)
    parts = upload(motions[taken], job.device).split(own_size)
    num_rows = job.batch_size * job.accumulation
    for i, (batch, part) in enumerate(zip(batches, parts, strict=True)):
        place = i % job.accumulation
        in_window = min(num_rows, len(order) - (i - place) * job.batch_size)
        # a batch weighs as much as it has images: the last one may be smaller
        weight = len(shares[i]) / in_window
        last = place == job.accumulation - 1 or i == len(parts) - 1
        yield order[wholes[i]], batch, part, {"share": weight, "first": place == 0, "last": last}


def validate(job: Job, on_batch: Callable[[], None] = lambda: None) -> Evaluation:
    """Evaluate on the validation part; `on_batch` is called after each batch."""
    return evaluate(
        job.infer,
        job.val_set,
        augment=job.val_augment,
        loss=job.loss,
        threshold=job.threshold,
        batch_size=job.eval_batch_size,
        device=job.device,
        on_batch=lambda rows, probability: on_batch(),
        world=job.world,
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
    """Everything that testing and resuming need; of averaged weights, the average is what is tested."""
    random_states, *others = job.world.gather(_random_states(job.device))
    return {
        **job.description,
        "model": job.kept_model.state_dict(),
        "training": {
            "model": None if job.kept_model is job.model else job.model.state_dict(),
            "optimizer": job.optimizer.state_dict(),
            "schedule": job.schedule.state_dict(),
            "random_states": random_states,
            **({"other_random_states": others} if others else {}),
            "progress": dict(vars(progress)),
        },
    }


def restore(job: Job, checkpoint: dict) -> Progress:
    """Put a job back to where a checkpoint left it."""
    training = checkpoint["training"]
    job.kept_model.load_state_dict(checkpoint["model"])
    if training.get("model") is not None:
        job.model.load_state_dict(training["model"])
    load_optimizer_state(job.optimizer, training["optimizer"])
    # torch notes on the optimiser, not in its state, that it has stepped, and warns when a schedule sees no note
    job.optimizer._opt_called = True
    # milestones are a setting, not a state; the checkpoint holds them as a plain dictionary
    job.schedule.load_state_dict({k: v for k, v in training["schedule"].items() if k != "milestones"})
    recorded = [training["random_states"], *training.get("other_random_states", ())]
    # a process more than there were goes on as it was seeded
    if job.world.rank < len(recorded):
        _set_random_states(recorded[job.world.rank], job.device)
    return Progress(**training["progress"])


@contextmanager
def out_of_memory_explained(job: Job) -> Iterator[None]:
    """Turn torch's error into an OutOfMemory that says what to try."""
    try:
        yield
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise OutOfMemory(_out_of_memory_message(job)) from error


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _epoch_line(progress: Progress, epochs: int, improved: bool) -> str:
    figures = progress.history[-1]
    shown = ("lr", "train_loss", "val_loss", "val_miou", "val_dsc")
    line = ", ".join(f"{name} {figures[name]:.6g}" for name in shown)
    return f"epoch {progress.epoch}/{epochs}: {line}{' (best)' if improved else ''}"


def _cost(job: Job, images_per_second: float) -> str:
    line = f"{images_per_second:.0f} images/s"
    if job.device.type == "cuda":
        line += f", at most {torch.cuda.max_memory_allocated(job.device) / 2**30:.2f} GiB"
    return line


def _not_finite_message(job: Job, progress: Progress, run: RunFolder, record: StepRecord) -> str:
    step = progress.position // (job.batch_size * job.accumulation) + 1
    bad = [rows for rows, loss in zip(record.rows, record.losses, strict=True) if not math.isfinite(loss)]
    what = f"the loss is {record.loss}" if bad else f"the gradient is not finite (the loss is {record.loss:.4g})"
    ids = ", ".join(job.train_set.ids[row] for rows in bad or record.rows for row in rows.tolist())
    return (
        f"{what} at epoch {progress.epoch + 1}, step {step}, on the images {ids}; "
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
