"""The training loop.

All randomness of an epoch's data comes from one generator. Every checkpoint holds its state at the start of the epoch,
so that an interrupted epoch is repeated exactly and entered at its position. Several processes generate the same
numbers, see `mhsvm.runtime.distributed`.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from mhsvm.data.loader import Batch, iterate_batches, upload
from mhsvm.evaluation.evaluator import Evaluation, evaluate_model
from mhsvm.runtime.numerics import numerics
from mhsvm.runtime.stop import StopSignal
from mhsvm.system import device_model
from mhsvm.training.errors import Interrupted, NotFinite, TrainingError, not_finite_message, out_of_memory_explained
from mhsvm.training.job import Job, Progress
from mhsvm.training.record import FolderRecord, MemoryRecord, NoRecord, Record
from mhsvm.training.run_folder import RunFolder
from mhsvm.training.step_log import StepLog, StepRecord
from mhsvm.training.training_state import checkpoint_content

log = logging.getLogger(__name__)


def train(
    job: Job,
    progress: Progress,
    run: RunFolder | MemoryRecord,
    stop: StopSignal | None = None,
    *,
    show_bar: bool = True,
) -> None:
    """Train until `job.epochs` epochs are done; validate, record and save after each.

    Args:
        job: The objects of the training.
        progress: The position to start from; it is updated in place.
        run: An existing run folder, or a record in memory.
        stop: Stops the training after the step in which it receives a signal.
        show_bar: Show a progress bar in a terminal.
    Raises:
        TrainingError: A loss or gradient is not finite, or memory does not suffice.
        Interrupted: `stop` received a signal, in any process; the last checkpoint holds the position.
        LostProcess: Another process has ended.
        OSError: The run's files cannot be written.
    """
    if job.world.is_first:
        for warning in job.warnings:
            log.warning("warning: %s", warning)
    with _open_record(job, progress, run) as record, _open_bar(job, progress, shown=show_bar) as bar:
        try:
            with out_of_memory_explained(job), numerics(tf32=job.tf32, deterministic=job.deterministic):
                _train(job, progress, record, bar, stop)
        except Interrupted:
            record.save(checkpoint_content(job, progress), best=False)
            raise
        except NotFinite as error:
            last = run.last if isinstance(run, RunFolder) else None
            raise TrainingError(not_finite_message(job, progress, last, error.record)) from error


def _train(job: Job, progress: Progress, record: Record, bar: tqdm, stop: StopSignal | None) -> None:
    def on_step(step: StepRecord) -> None:
        bar.set_postfix(epoch=progress.epoch + 1, loss=f"{step.loss:.4f}", refresh=False)
        bar.update(step.num_images)

    def check_stop() -> None:
        if job.world.any(stop is not None and stop.signum is not None):
            raise Interrupted

    # processes evaluate different numbers of batches, so that they cannot decide together during validation
    alone = job.world.size == 1
    record.save(checkpoint_content(job, progress), best=False)
    while progress.epoch < job.epochs:
        speed = train_epoch(job, progress, on_step, check_stop)
        evaluation = validate(job, check_stop if alone else lambda: None)
        improved = close_epoch(job, progress, evaluation)
        record.add(progress.history[-1])
        record.save(checkpoint_content(job, progress), best=improved)
        log.info("%s; %s", _epoch_line(progress, job.epochs, improved), _cost(job, speed))


@contextmanager
def _open_record(job: Job, progress: Progress, run: RunFolder | MemoryRecord) -> Iterator[Record]:
    if not job.world.is_first:
        yield NoRecord()
    elif isinstance(run, MemoryRecord):
        yield run
    else:
        hardware = {"device": device_model(job.device), "processes": job.world.size, "torch": str(torch.__version__)}
        with FolderRecord(run, progress.history, epochs=job.epochs, hardware=hardware) as record:
            yield record


def _open_bar(job: Job, progress: Progress, *, shown: bool) -> tqdm:
    hidden = None if shown and job.world.is_first else True
    bar = tqdm(total=job.epochs * len(job.train_set), unit="img", disable=hidden, dynamic_ncols=True)
    bar.update(progress.epoch * len(job.train_set) + progress.position)
    return bar


def train_epoch(
    job: Job,
    progress: Progress,
    on_step: Callable[[StepRecord], None] = lambda record: None,
    check_stop: Callable[[], None] = lambda: None,
) -> float:
    """Train on the rest of the current epoch.

    Args:
        job: The objects of the training.
        progress: The position, updated in place.
        on_step: Called with the record of each optimizer step, in order; on a GPU with some delay.
        check_stop: Called after each step; may raise Interrupted to stop there.
    Returns:
        Images per second.
    Raises:
        NotFinite: The loss or gradient of a step is not finite.
        Interrupted: `check_stop` raised it; `progress` holds the position.
    """
    start, position = time.perf_counter(), progress.position
    job.model.train()
    job.generator.set_state(progress.data_state)
    order = torch.randperm(len(job.train_set), generator=job.generator)[position:]
    parameters = job.augment.sample_transforms(len(job.train_set), job.generator)[position:]
    # sampled last, so that sets with one mask an image have the same numbers as before
    job = replace(job, train_set=job.train_set.with_random_masks(job.generator))
    steps = StepLog(math.ceil(len(order) / job.batch_size), job.device, lockstep=job.world.size > 1)

    def settle(*, wait: bool) -> None:
        for record in steps.read(wait=wait):
            if record.found_inf:
                raise NotFinite(record)
            progress.position += record.num_images
            progress.loss_sum += record.loss * record.num_images
            on_step(record)

    try:
        for rows, batch, batch_parameters, window in iterate_windows(job, order, parameters):
            report = job.step(batch.images, batch.masks, batch_parameters, **window)
            steps.add(report, rows, last=window["last"])
            if window["last"]:
                settle(wait=False)
                check_stop()
    except Interrupted:
        settle(wait=True)
        raise
    settle(wait=True)
    return (progress.position - position) / (time.perf_counter() - start)


def iterate_windows(job: Job, order: Tensor, parameters: Tensor) -> Iterator[tuple[Tensor, Batch, Tensor, dict]]:
    """Yield each batch: its rows, the shard of this process, that shard's augmentation parameters, its place in a step.

    Args:
        job: The objects of the training.
        order: int64 (n,), rows of the training set in training order, on the CPU.
        parameters: (n, 2, 2), augmentation parameters of each row, from `job.augment`.
    """
    if not len(order):
        # stopped between the last step and the validation
        return
    wholes = torch.arange(len(order)).split(job.batch_size)
    shards = [job.world.shard(whole) for whole in wholes]
    # a process without an image of a small last batch computes one with weight 0
    places = [shard if len(shard) else whole[:1] for shard, whole in zip(shards, wholes, strict=True)]
    taken, own_size = torch.cat(places), len(places[0])
    batches = iterate_batches(job.train_set, order[taken], batch_size=own_size, device=job.device)
    parts = upload(parameters[taken], job.device).split(own_size)
    num_rows = job.batch_size * job.accumulation
    for i, (batch, part) in enumerate(zip(batches, parts, strict=True)):
        place = i % job.accumulation
        in_window = min(num_rows, len(order) - (i - place) * job.batch_size)
        # the weight of a batch is its fraction of the window's images: the last batch may be smaller
        weight = len(shards[i]) / in_window
        last = place == job.accumulation - 1 or i == len(parts) - 1
        yield order[wholes[i]], batch, part, {"weight": weight, "first": place == 0, "last": last}


def validate(job: Job, on_batch: Callable[[], None] = lambda: None) -> Evaluation:
    """Evaluate on the validation part; `on_batch` is called after each batch."""
    # compiling the network again for evaluation would take longer than it saves
    with torch.compiler.set_stance("force_eager") if job.step.compiled else nullcontext():
        return evaluate_model(
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
    """Add the epoch's metrics to the history, step the schedule, and return whether its validation loss is the best.

    Raises:
        TrainingError: The validation loss is not finite.
    """
    if not math.isfinite(evaluation.loss):
        raise TrainingError(
            f"the validation loss of epoch {progress.epoch + 1} is {evaluation.loss}: the weights have diverged; "
            "the last checkpoint is from before this epoch. Try a lower learning rate or train.clip_norm 1"
        )
    metrics = {"epoch": progress.epoch + 1, "lr": job.optimizer.param_groups[0]["lr"]}
    metrics["train_loss"] = progress.loss_sum / len(job.train_set)
    # None where no class of the mean occurs in the validation part: JSON has no NaN
    values = evaluation.metrics().items()
    metrics |= {f"val_{name}": None if math.isnan(value) else value for name, value in values}
    progress.history.append(metrics)
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
    metrics = progress.history[-1]
    shown = ("lr", "train_loss", "val_loss", "val_miou", "val_dsc")
    line = ", ".join(f"{name} {'-' if metrics[name] is None else format(metrics[name], '.6g')}" for name in shown)
    return f"epoch {progress.epoch}/{epochs}: {line}{' (best)' if improved else ''}"


def _cost(job: Job, images_per_second: float) -> str:
    line = f"{images_per_second:.0f} images/s"
    if job.device.type == "cuda":
        line += f", at most {torch.cuda.max_memory_allocated(job.device) / 2**30:.2f} GiB"
    return line
