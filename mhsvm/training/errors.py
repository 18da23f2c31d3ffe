"""Reasons for a training to stop before its end, and the remedies."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mhsvm.training.job import Job, Progress
from mhsvm.training.step_log import StepRecord


class TrainingError(RuntimeError):
    """Training cannot continue; the message names the place and the remedy."""


class OutOfMemory(TrainingError):
    """Memory does not suffice in this process; other processes may have enough."""


class Interrupted(RuntimeError):
    """A signal has requested a stop; `train` has saved a checkpoint to resume from."""


class NotFinite(RuntimeError):
    """The loss or gradient of a step is NaN or infinite; that step and all later ones have changed nothing.

    Args:
        record: The record of the step.
    """

    def __init__(self, record: StepRecord) -> None:
        super().__init__(f"a step is not finite: its loss is {record.loss}")
        self.record = record


def not_finite_message(job: Job, progress: Progress, last: Path | None, record: StepRecord) -> str:
    """Name the step, its images and the remedy; `last` is the checkpoint to resume from, if there is one."""
    step = progress.position // (job.batch_size * job.accumulation) + 1
    bad = [rows for rows, loss in zip(record.rows, record.losses, strict=True) if not math.isfinite(loss)]
    reason = f"the loss is {record.loss}" if bad else f"the gradient is not finite (the loss is {record.loss:.4g})"
    ids = ", ".join(job.train_set.ids[row] for rows in bad or record.rows for row in rows.tolist())
    good = "" if last is None else f"the last good checkpoint is {last}. "
    return (
        f"{reason} at epoch {progress.epoch + 1}, step {step}, on the images {ids}; "
        f"{good}Try a lower learning rate or train.clip_norm 1"
    )


@contextmanager
def out_of_memory_explained(job: Job) -> Iterator[None]:
    """Turn torch's error into an OutOfMemory that names the remedies."""
    try:
        yield
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise OutOfMemory(_out_of_memory_message(job)) from error


def _is_out_of_memory(error: RuntimeError) -> bool:
    # torch has no separate class for the CPU
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _out_of_memory_message(job: Job) -> str:
    height, width = job.train_set.images.shape[1:3]
    smaller = max(1, job.batch_size // 2)
    advice = f"train.batch_size {smaller} train.accumulation {job.accumulation * (job.batch_size // smaller)}"
    return (
        f"memory does not suffice on {job.device} for train.batch_size {job.batch_size}, train.accumulation "
        f"{job.accumulation}, images of {height} x {width}: try {advice} (the same steps), evaluation.batch_size "
        f"{max(1, job.eval_batch_size // 2)}, or a set prepared at size {height // 2 // 32 * 32 or 32}"
    )
