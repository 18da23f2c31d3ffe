"""The time of an epoch by parts: the stages of its steps, idle time, validation and checkpoint.

A step in a CUDA graph cannot be timed in pieces. Instead, passes over the same batches are timed: the first one only
loads the data, and each following one adds a stage. The time of a stage is the difference between its pass and the one
before. On a GPU the passes are always graphs, so that they contain no launch overhead. The time by which training
exceeds the last pass is idle time.
"""

import copy
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise

import torch
from torch import Generator, Tensor

from mhsvm.data.dataset import Dataset
from mhsvm.runtime.graphs import WARM_UP_CALLS, CapturedCall, warm_up
from mhsvm.runtime.numerics import numerics
from mhsvm.training.checkpoint import take_snapshot
from mhsvm.training.errors import out_of_memory_explained
from mhsvm.training.job import Job, Progress
from mhsvm.training.step import TrainStep
from mhsvm.training.trainer import iterate_windows, train_epoch, validate
from mhsvm.training.training_state import checkpoint_content

log = logging.getLogger(__name__)

STAGES = ("data", "forward", "backward", "optimizer")
# Repetitions of each measurement. The minimum counts, because other work on the machine only adds time.
_ROUNDS = 5


@dataclass(frozen=True)
class TrainingProfile:
    """Times of one epoch, after kernels are compiled and graphs are captured.

    Attributes:
        stages: Seconds of all steps in each of `STAGES`: loading, augmentation and normalization; logits and loss;
            gradients; clipping, optimizer step and moving average.
        training: Seconds of all steps in a real epoch.
        validation: Seconds of the validation.
        checkpoint: Seconds to copy the content of a checkpoint; it is written while the next epoch trains.
        num_train, num_val: Number of images.
        num_steps: Number of optimizer steps.
        peak_bytes: Peak memory: allocated by torch on a GPU, or resident memory of the process on a CPU; None if the
            system does not report it.
    """

    stages: Mapping[str, float]
    training: float
    validation: float
    checkpoint: float
    num_train: int
    num_val: int
    num_steps: int
    peak_bytes: int | None

    @property
    def idle(self) -> float:
        """Seconds of training beyond its stages; 0 if the stages, which are timed separately, took longer."""
        return max(0.0, self.training - sum(self.stages.values()))

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of each part of an epoch, by name."""
        return {**self.stages, "idle": self.idle, "evaluation": self.validation, "checkpoint": self.checkpoint}


def profile_training(job: Job, *, seconds: float = 1.0) -> TrainingProfile:
    """Time a training by running some of its steps; nothing is written.

    Args:
        job: The training. Its weights change: do not use it afterwards.
        seconds: Approximate duration of a pass. The time of an epoch is extrapolated by the number of images.
    Raises:
        ValueError: The job is one of several processes.
        NotFinite: The loss or gradient of a step is not finite.
        OutOfMemory: Memory does not suffice.
    """
    if job.world.size > 1:
        raise ValueError(f"a profile is made in one process, not in {job.world.size}: start it without torchrun")
    num_train, num_val = len(job.train_set), len(job.val_set)
    window = _window(job)
    # only complete windows are timed, so that passes and training have batches of one size
    job = replace(job, train_set=_first(job.train_set, num_train // window * window))
    with out_of_memory_explained(job), numerics(tf32=job.tf32, deterministic=job.deterministic):
        log.info("warming up")
        num_windows, num_batches = _warm_up_training(job, seconds), _warm_up_validation(job, seconds)
        peak_bytes = _peak_bytes(job.device)
        passes = _Passes(job)
        log.info("timing")
        timers: dict[str, Callable[[], float]] = {
            **{stage: partial(passes.time, stage, num_windows * window) for stage in STAGES},
            "training": partial(_time_training, job, num_windows * window),
            "validation": partial(_time_validation, job, num_batches * job.eval_batch_size),
            "checkpoint": partial(_time_checkpoint, job),
        }
        rounds = [{name: timer() for name, timer in timers.items()} for _ in range(_ROUNDS)]
    fastest = {name: min(durations[name] for durations in rounds) for name in timers}
    return TrainingProfile(
        stages=stages_of_passes({stage: num_train * fastest[stage] for stage in STAGES}),
        training=num_train * fastest["training"],
        validation=num_val * fastest["validation"],
        checkpoint=fastest["checkpoint"],
        num_train=num_train,
        num_val=num_val,
        num_steps=math.ceil(num_train / (job.batch_size * job.accumulation)),
        peak_bytes=peak_bytes,
    )


def stages_of_passes(passes: Mapping[str, float]) -> dict[str, float]:
    """The time by which each pass exceeds those before it; 0 if it was not slower."""
    ends = accumulate(passes.values(), max, initial=0.0)
    return {stage: end - start for stage, (start, end) in zip(passes, pairwise(ends), strict=True)}


class _Passes:
    """A pass over batches for each stage, on copies of the model and optimizer; on a GPU as CUDA graphs."""

    def __init__(self, job: Job) -> None:
        self._job = job
        model, optimizer, average = copy.deepcopy((job.model, job.optimizer, job.step.average))
        self._step = TrainStep(
            model.train(),
            optimizer,
            job.loss,
            prepare=job.augment,
            mode="compile" if job.step.compiled else "auto",
            clip_norm=job.step.clip_norm,
            precision=job.step.precision,
            average=average,
        )
        if job.step.captures:
            # these graphs and those of the job never run at the same time
            self._step.pool = job.step.pool
        self._trained = [p for p in model.parameters() if p.requires_grad]
        calls = {"data": self._load, "forward": self._forward, "backward": self._backward}
        if self._step.captures:
            batch, _ = next(self._batches(job.batch_size))
            calls = {stage: self._captured(call, batch) for stage, call in calls.items()}
        self._calls: dict[str, Callable[..., Tensor]] = calls
        for stage in STAGES:
            for _ in range(_num_warm_ups(self._step)):
                self.time(stage, _window(job))

    def time(self, stage: str, num_images: int) -> float:
        """Seconds per image of the pass that ends with a stage."""
        start = time.perf_counter()
        for batch, place in self._batches(num_images):
            output = self._step(*batch, **place) if stage == "optimizer" else self._calls[stage](*batch)
        # reading a number synchronizes with the device
        output.flatten()[0].item()
        return (time.perf_counter() - start) / num_images

    def _batches(self, num_images: int) -> Iterator[tuple[tuple[Tensor, ...], dict]]:
        generator = Generator().manual_seed(0)
        order = torch.randperm(len(self._job.train_set), generator=generator)[:num_images]
        parameters = self._job.augment.sample_transforms(len(order), generator)
        for _, batch, batch_parameters, place in iterate_windows(self._job, order, parameters):
            yield (batch.images, batch.masks, batch_parameters), place

    def _load(self, *batch: Tensor) -> Tensor:
        inputs, _ = self._job.augment(*batch)
        return inputs

    def _forward(self, *batch: Tensor) -> Tensor:
        return self._step.compute_loss(*batch).detach()

    def _backward(self, *batch: Tensor) -> Tensor:
        loss = self._step.compute_loss(*batch)
        torch.autograd.grad(loss, self._trained, allow_unused=True)
        return loss.detach()

    def _captured(self, call: Callable[..., Tensor], batch: tuple[Tensor, ...]) -> CapturedCall:
        for _ in range(WARM_UP_CALLS):
            warm_up(call, batch)
        return CapturedCall(call, batch, pool=self._step.pool)


def _warm_up_training(job: Job, seconds: float) -> int:
    """Train until kernels are compiled and graphs captured; return the number of windows that take about `seconds`."""
    window = _window(job)
    for _ in range(_num_warm_ups(job.step)):
        _time_training(job, window)
    fitting = int(seconds / (_time_training(job, window) * window))
    return max(1, min(fitting, len(job.train_set) // window))


def _time_training(job: Job, num_images: int) -> float:
    """Seconds per image of training on the last `num_images` of an epoch."""
    progress = Progress(data_state=job.generator.get_state(), position=len(job.train_set) - num_images)
    start = time.perf_counter()
    train_epoch(job, progress)
    return (time.perf_counter() - start) / num_images


def _warm_up_validation(job: Job, seconds: float) -> int:
    """Validate until kernels are compiled; return the number of batches that take about `seconds`."""
    size = job.eval_batch_size
    _time_validation(job, size)
    fitting = int(seconds / (_time_validation(job, size) * min(size, len(job.val_set))))
    return max(1, min(fitting, math.ceil(len(job.val_set) / size)))


def _time_validation(job: Job, num_images: int) -> float:
    """Seconds per image of validating on the first `num_images`."""
    part = _first(job.val_set, num_images)
    start = time.perf_counter()
    validate(replace(job, val_set=part))
    return (time.perf_counter() - start) / len(part)


def _time_checkpoint(job: Job) -> float:
    progress = job.fresh_progress()
    start = time.perf_counter()
    take_snapshot(checkpoint_content(job, progress))
    return time.perf_counter() - start


def _window(job: Job) -> int:
    """Number of images in the batches of a step; fewer if the training set is smaller."""
    num_images = len(job.train_set)
    batch_size = min(job.batch_size, num_images)
    return batch_size * min(job.accumulation, num_images // batch_size)


def _first(dataset: Dataset, num: int) -> Dataset:
    return dataset.first(num)


def _num_warm_ups(step: TrainStep) -> int:
    """Steps until graphs are captured or kernels are compiled."""
    return WARM_UP_CALLS + 1 if step.captures else 1


def _peak_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    # Windows has no such module
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
