"""Why a training stops before its end, and what its user can do about it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mhsvm.training.job import Job, Progress
from mhsvm.training.run_folder import RunFolder
from mhsvm.training.step_log import StepRecord


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


def not_finite_message(job: Job, progress: Progress, run: RunFolder, record: StepRecord) -> str:
    """Which step it was, on which images, and what to try."""
    step = progress.position // (job.batch_size * job.accumulation) + 1
    bad = [rows for rows, loss in zip(record.rows, record.losses, strict=True) if not math.isfinite(loss)]
    what = f"the loss is {record.loss}" if bad else f"the gradient is not finite (the loss is {record.loss:.4g})"
    ids = ", ".join(job.train_set.ids[row] for rows in bad or record.rows for row in rows.tolist())
    return (
        f"{what} at epoch {progress.epoch + 1}, step {step}, on the images {ids}; "
        f"the last good checkpoint is {run.last}. Try a lower learning rate or train.clip_norm 1"
    )


@contextmanager
def out_of_memory_explained(job: Job) -> Iterator[None]:
    """Turn torch's error into an OutOfMemory that says what to try."""
    try:
        yield
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise OutOfMemory(_out_of_memory_message(job)) from error


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
