"""The training loop.

All randomness of an epoch's data comes from one generator, whose state at the epoch's start is part of every
checkpoint: an epoch that was left half-way is drawn again exactly and entered where it was left. Several processes draw
the same, see `mhsvm.runtime.distributed`.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from mhsvm.data.loader import Batch, iterate_batches, upload
from mhsvm.evaluation.evaluator import Evaluation, evaluate
from mhsvm.runtime.numerics import numerics
from mhsvm.runtime.stop import StopSignal
from mhsvm.system import device_model
from mhsvm.training.checkpoint_writer import CheckpointWriter
from mhsvm.training.errors import Interrupted, NotFinite, TrainingError, not_finite_message, out_of_memory_explained
from mhsvm.training.job import Job, Progress
from mhsvm.training.run_folder import Recorder, RunFolder
from mhsvm.training.step_log import StepLog, StepRecord
from mhsvm.training.training_state import checkpoint_content

log = logging.getLogger(__name__)


def train(job: Job, progress: Progress, run: RunFolder, stop: StopSignal) -> None:
    """Train until `job.epochs` epochs are done, validating, recording and saving after each.

    Raises:
        TrainingError: A loss or gradient is not finite, or memory does not suffice.
        Interrupted: `stop` got a signal, in any process; the last checkpoint holds the position.
        LostProcess: Another process has ended.
        OSError: The run's files cannot be written.
    """
    with CheckpointWriter() as writer:
        _train(job, progress, run, stop, writer)


def _train(job: Job, progress: Progress, run: RunFolder, stop: StopSignal, writer: CheckpointWriter) -> None:
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
        if writes:
            writer.save(paths, content)

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
        raise TrainingError(not_finite_message(job, progress, run, error.record)) from error
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
    motions = job.augment.sample_transforms(len(job.train_set), job.generator)[position:]
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
    shares = [job.world.shard(whole) for whole in wholes]
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
    # compiling the network once more, for evaluation, would take longer than it spares
    with torch.compiler.set_stance("force_eager") if job.step.compiled else nullcontext():
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
