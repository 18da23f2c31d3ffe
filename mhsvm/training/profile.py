"""Where the time of an epoch goes: the stages of its steps, waiting, validation and checkpoint.

A step in a CUDA graph cannot be cut open. What is timed instead are passes over the same batches: the first of the data
alone, each other of one stage more. A stage takes what its pass takes beyond the one before. On a GPU the passes are
always graphs, so that launches cost nothing in them: what the training itself takes beyond the last one, it waits.
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

STAGES = ("data", "forward", "backward", "optimiser")
# Times that everything is timed. The least counts: what else runs on the machine only adds to it.
_ROUNDS = 5


@dataclass(frozen=True)
class TrainingProfile:
    """One epoch of a training that is under way: its kernels are compiled, its graphs captured.

    Attributes:
        stages: Seconds of all steps together in each of `STAGES`: loading, moving and normalising; logits and loss;
            gradients; clipping, step and moving average.
        training: Seconds of all steps together as they were trained.
        validation: Seconds.
        checkpoint: Seconds of copying what is saved; it is written while the next epoch trains.
        num_train, num_val: Images.
        num_steps: Of the optimiser.
        peak_bytes: Memory at most: what torch allocated on the GPU, or what the process held on a CPU; None where the
            system does not tell.
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
        """Seconds of training beyond its stages; 0 where those, timed at another moment, took longer."""
        return max(0.0, self.training - sum(self.stages.values()))

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of everything in an epoch, by name."""
        return {**self.stages, "idle": self.idle, "evaluation": self.validation, "checkpoint": self.checkpoint}


def profile_training(job: Job, *, seconds: float = 1.0) -> TrainingProfile:
    """Time a training by training for a while; nothing is written.

    Args:
        job: Its weights change: it is not to be trained in earnest afterwards.
        seconds: What a pass is to take, about. An epoch is extrapolated from it by its images.
    Raises:
        ValueError: The job is one of several processes.
        NotFinite: The loss or gradient of a step is not.
        OutOfMemory: Memory does not suffice.
    """
    if job.world.size > 1:
        raise ValueError(f"a profile is made in one process, not in {job.world.size}: start it without torchrun")
    num_train, num_val = len(job.train_set), len(job.val_set)
    window = _window(job)
    # whole windows alone are timed, so that passes and training are over batches of one size
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
    least = {name: min(taken[name] for taken in rounds) for name in timers}
    return TrainingProfile(
        stages=stages_of_passes({stage: num_train * least[stage] for stage in STAGES}),
        training=num_train * least["training"],
        validation=num_val * least["validation"],
        checkpoint=least["checkpoint"],
        num_train=num_train,
        num_val=num_val,
        num_steps=math.ceil(num_train / (job.batch_size * job.accumulation)),
        peak_bytes=peak_bytes,
    )


def stages_of_passes(passes: Mapping[str, float]) -> dict[str, float]:
    """What each pass takes beyond those before it: nothing if it was no slower."""
    ends = accumulate(passes.values(), max, initial=0.0)
    return {stage: end - start for stage, (start, end) in zip(passes, pairwise(ends), strict=True)}


class _Passes:
    """A pass over batches for each stage, on copies of all that a step changes; as graphs if there is a GPU."""

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
            # these graphs and the job's take turns
            self._step.pool = job.step.pool
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        calls = {"data": self._load, "forward": self._forward, "backward": self._backward}
        if self._step.captures:
            batch, _ = next(self._batches(job.batch_size))
            calls = {stage: self._captured(call, batch) for stage, call in calls.items()}
        self._calls: dict[str, Callable[..., Tensor]] = calls
        for stage in STAGES:
            for _ in range(_num_warm_ups(self._step)):
                self.time(stage, _window(job))

    def time(self, stage: str, num_images: int) -> float:
        """Seconds an image of the pass that ends with a stage."""
        start = time.perf_counter()
        for batch, place in self._batches(num_images):
            output = self._step(*batch, **place) if stage == "optimiser" else self._calls[stage](*batch)
        # reading a number waits for the device
        output.flatten()[0].item()
        return (time.perf_counter() - start) / num_images

    def _batches(self, num_images: int) -> Iterator[tuple[tuple[Tensor, ...], dict]]:
        generator = Generator().manual_seed(0)
        order = torch.randperm(len(self._job.train_set), generator=generator)[:num_images]
        motions = self._job.augment.sample_transforms(len(order), generator)
        for _, batch, batch_motions, place in iterate_windows(self._job, order, motions):
            yield (batch.images, batch.masks, batch_motions), place

    def _load(self, *batch: Tensor) -> Tensor:
        inputs, _ = self._job.augment(*batch)
        return inputs

    def _forward(self, *batch: Tensor) -> Tensor:
        return self._step.compute_loss(*batch).detach()

    def _backward(self, *batch: Tensor) -> Tensor:
        loss = self._step.compute_loss(*batch)
        torch.autograd.grad(loss, self._parameters, allow_unused=True)
        return loss.detach()

    def _captured(self, call: Callable[..., Tensor], batch: tuple[Tensor, ...]) -> CapturedCall:
        for _ in range(WARM_UP_CALLS):
            warm_up(call, batch)
        return CapturedCall(call, batch, pool=self._step.pool)


def _warm_up_training(job: Job, seconds: float) -> int:
    """Train until it is as quick as it will be; returns how many windows of batches take about `seconds`."""
    window = _window(job)
    for _ in range(_num_warm_ups(job.step)):
        _time_training(job, window)
    fitting = int(seconds / (_time_training(job, window) * window))
    return max(1, min(fitting, len(job.train_set) // window))


def _time_training(job: Job, num_images: int) -> float:
    """Seconds an image of training on the last ones of an epoch."""
    progress = Progress(data_state=job.generator.get_state(), position=len(job.train_set) - num_images)
    start = time.perf_counter()
    train_epoch(job, progress)
    return (time.perf_counter() - start) / num_images


def _warm_up_validation(job: Job, seconds: float) -> int:
    """Validate likewise; returns how many batches take about `seconds`."""
    size = job.eval_batch_size
    _time_validation(job, size)
    fitting = int(seconds / (_time_validation(job, size) * min(size, len(job.val_set))))
    return max(1, min(fitting, math.ceil(len(job.val_set) / size)))


def _time_validation(job: Job, num_images: int) -> float:
    """Seconds an image of validating on the first ones."""
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
    """Images of the whole batches of a step, as far as there are so many."""
    num_images = len(job.train_set)
    batch_size = min(job.batch_size, num_images)
    return batch_size * min(job.accumulation, num_images // batch_size)


def _first(dataset: Dataset, num: int) -> Dataset:
    return replace(dataset, ids=dataset.ids[:num], images=dataset.images[:num], masks=dataset.masks[:num])


def _num_warm_ups(step: TrainStep) -> int:
    """Steps until graphs are captured, or kernels compiled."""
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
