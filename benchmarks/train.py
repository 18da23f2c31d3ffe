"""Training as users run it, captured on a GPU: a step, inference, an epoch; checked, then timed."""

import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.fresh import choose_models, fresh_step, random_batch
from benchmarks.model_check import (
    CHECK_BATCH,
    CHECK_SIZE,
    OUTPUT_LIMITS,
    WrongNetwork,
    autocast,
    check_network,
    perturb,
)
from benchmarks.scaling import ScalingRun, scaling_rows
from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset
from mhsvm.data.loader import choose_placement
from mhsvm.layers import DropPath
from mhsvm.models import create_model
from mhsvm.runtime.graphs import WARM_UP_CALLS, GraphedModel
from mhsvm.runtime.numerics import numerics
from mhsvm.runtime.timing import Candidate, synchronize, time_interleaved
from mhsvm.system import describe_device, read_versions
from mhsvm.training.job import Job
from mhsvm.training.schedules import create_schedule
from mhsvm.training.step import TrainStep
from mhsvm.training.trainer import train_epoch, validate

log = logging.getLogger(__name__)

SCHEMA = 1
# Numbers of images and epochs of the recipe `ultralight` on ISIC 2017.
_NUM_TRAIN, _NUM_VAL, _EPOCHS, _VAL_BATCH = 1250, 150, 250, 32
# An epoch of the recipe takes minutes on a CPU.
_NUM_TRAIN_CPU = 100

_SCALED = "mhs_vm"
# Images of a training step, as the published recipes take them.
_BATCHES = {"ultralight_vm_unet": 8}
_BATCH = 32
# Losses may differ from eager ones by this many times the greatest difference that other rounding of the weights makes,
# in this many repetitions.
_ALLOWANCE, _REPETITIONS = 4.0, 4


@numerics(tf32=False, deterministic=False)
def bench_train(
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    models: Sequence[str] | None = None,
    mode: str = "auto",
    batch: int | None = None,
    size: int = 256,
    num_images: int | None = None,
    seconds: float = 1.0,
) -> dict:
    """Check networks with fresh weights and their training steps, then time them.

    Args:
        device: Where to run.
        dtype: float32, or bfloat16 for autocast.
        models: Names from `mhsvm.list_models()`; by default all but smp.
        mode: See `mhsvm.training.step.TrainStep`; inference is captured unless it is "eager", and compiled
            if it is "compile".
        batch: Images of a step; by default those of the recipe: 8 of UltraLight, 32 of the others.
        size: Side in pixels.
        num_images: Training images of UltraLight's epoch, by default 1250 on a GPU, else 100; 12 % as many validate.
        seconds: How long to time each row, about.
    Returns:
        A report of plain types, as `python -m benchmarks train --json` writes it. A wrong network, or one with a wrong
        captured step, is in "wrong" with the reason, and is not timed.
    Raises:
        ValueError: A name is unknown, or a type is not offered.
    """
    if dtype not in OUTPUT_LIMITS:
        raise ValueError(f"networks are timed in float32 or bfloat16, not in {dtype}")
    num_images = num_images or (_NUM_TRAIN if device.type == "cuda" else _NUM_TRAIN_CPU)
    report = {
        "schema": SCHEMA,
        "benchmark": "train",
        "versions": read_versions(),
        "device": describe_device(device),
        "dtype": str(dtype).removeprefix("torch."),
        "mode": mode,
        "size": size,
        "check": f"against reference in float64, on {CHECK_BATCH} images of {CHECK_SIZE} x {CHECK_SIZE}; "
        "steps against eager ones",
        "results": [],
        "wrong": [],
    }
    for model in choose_models(models):
        log.info("%s", model)
        bench = _Bench(model, device, dtype, mode, size, seconds)
        try:
            check_network(model, ["auto"], dtype=dtype, device=device)
            report["results"].extend(bench.rows(batch or _BATCHES.get(model, _BATCH), num_images))
        except WrongNetwork as error:
            report["wrong"].append({"model": model, "reason": str(error)})
    return report


@dataclass(frozen=True)
class _Bench:
    """One network, and how it is run."""

    model: str
    device: torch.device
    dtype: torch.dtype
    mode: str
    size: int
    seconds: float

    def rows(self, batch: int, num_images: int) -> Iterator[dict]:
        """Yield the rows one by one, so that those before an error are kept."""
        yield from self.training(batch)
        for images in sorted({1, batch}):
            yield self.inference(images)
        if self.model == "ultralight_vm_unet":
            yield self.epochs(batch, num_images)
        if self.model == _SCALED:
            yield from self.several_gpus(batch)

    def training(self, batch: int) -> list[dict]:
        images, targets = self._batch(batch)
        self._check_step(images, targets)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        step = self._step(self.mode)
        for _ in range(WARM_UP_CALLS + 1):
            step(images, targets)
        row = self._timed("training step", batch, lambda i: step(images, targets))
        if self.device.type != "cuda":
            return [row]
        peak = torch.cuda.max_memory_allocated(self.device) - before
        return [row, {"model": self.model, "phase": "memory of training", "batch": batch, "bytes": peak}]

    def inference(self, batch: int) -> dict:
        images, _ = self._batch(batch)
        torch.manual_seed(0)
        network: nn.Module = create_model(self.model).to(self.device).eval()
        if self.mode == "compile":
            network.compile(dynamic=False)
        if self.device.type == "cuda" and self.mode != "eager":
            network = GraphedModel(network, images.shape)

        def infer(i: int) -> Tensor:
            with torch.inference_mode(), autocast(self.device, self.dtype):
                return network(images)

        return self._timed("inference", batch, infer)

    def several_gpus(self, batch: int) -> list[dict]:
        """A step in 2, 4, … processes, each with a GPU of its own, as far as there are GPUs."""
        there = torch.cuda.device_count() if self.device.type == "cuda" else 1
        numbers = [2**i for i in range(1, there.bit_length())]
        dtype = str(self.dtype).removeprefix("torch.")
        run = ScalingRun(self.model, self.device.type, dtype, self.mode, batch, self.size)
        return scaling_rows(run, numbers) if numbers else []

    def epochs(self, batch: int, num_images: int) -> dict:
        """UltraLight's training from its start to its last validation, extrapolated from the first usual epoch."""
        job = self._job(batch, num_images)
        progress, taken = job.fresh_progress(), []
        # the smaller last batch comes once per epoch, until it is captured, too
        for _ in range(WARM_UP_CALLS + 2 if job.step.captures else 2):
            start = time.perf_counter()
            train_epoch(job, progress)
            validate(job)
            synchronize(self.device)
            taken.append(time.perf_counter() - start)
            progress = job.fresh_progress()
        return {
            "model": self.model,
            "phase": f"{_EPOCHS} epochs",
            "batch": batch,
            "images": num_images,
            "first_epoch_s": taken[0],
            "epoch_s": taken[-1],
            "median_s": sum(taken) + (_EPOCHS - len(taken)) * taken[-1],
        }

    def _timed(self, phase: str, batch: int, candidate: Candidate) -> dict:
        timing = time_interleaved({phase: candidate}, device=self.device, seconds=self.seconds)[phase]
        return {
            "model": self.model,
            "phase": phase,
            "batch": batch,
            **timing.to_dict(),
            "images_per_s": batch / timing.median,
        }

    def _batch(self, num: int) -> tuple[Tensor, Tensor]:
        images, targets = random_batch(num, self.size)
        return images.to(self.device), targets.to(self.device)

    def _step(self, mode: str, prepare: Augment | None = None) -> TrainStep:
        return fresh_step(self.model, device=self.device, dtype=self.dtype, mode=mode, prepare=prepare)

    def _check_step(self, images: Tensor, targets: Tensor) -> None:
        """Refuse to time steps whose losses are not those of eager ones, past the capture too."""
        expected, found = (self._losses(mode, images, targets) for mode in ("eager", self.mode))
        limits = [OUTPUT_LIMITS[self.dtype] * abs(loss) for loss in expected]
        if _first_over(limits, found, expected) is None:
            return
        # AdamW's first steps are as long for a gradient that is rounding error as for any other
        repeated = [self._losses("eager", images, targets, seed=seed) for seed in range(1, _REPETITIONS + 1)]
        for i, losses in itertools.product(range(len(limits)), repeated):
            limits[i] = max(limits[i], _ALLOWANCE * abs(losses[i] - expected[i]))
        i = _first_over(limits, found, expected)
        if i is not None:
            raise WrongNetwork(
                f"the training step of {self.model}, mode {self.mode}, is wrong and not timed: its loss {i + 1} is "
                f"{found[i]:.6g} where an eager one's is {expected[i]:.6g}; the limit is {limits[i]:.1e}"
            )

    def _losses(self, mode: str, images: Tensor, targets: Tensor, *, seed: int | None = None) -> list[float]:
        """Losses of some steps; with a seed, with weights that round differently."""
        step = self._step(mode)
        for module in step.model.modules():
            # compiled, it uses other random numbers
            if isinstance(module, DropPath):
                module.eval()
        if seed is not None:
            perturb(step.model, dtype=self.dtype, seed=seed)
        return [step(images, targets)[0].item() for _ in range(WARM_UP_CALLS + 2)]

    def _job(self, batch: int, num_images: int) -> Job:
        augment = Augment(augmentation="ultralight")
        step = self._step(self.mode, augment)
        num_val = max(1, num_images * _NUM_VAL // _NUM_TRAIN)
        train_set, val_set = (_random_set(num, self.size) for num in (num_images, num_val))
        placed = choose_placement(train_set.num_bytes + val_set.num_bytes, self.device).device
        shape = (_VAL_BATCH, 3, self.size, self.size)
        infer = GraphedModel(step.model, shape, pool=step.pool) if step.captures else step.model
        return Job(
            model=step.model,
            optimizer=step.optimizer,
            schedule=create_schedule("CosineAnnealingLR", step.optimizer, T_max=50),
            loss=step.loss,
            step=step,
            infer=infer,
            train_set=train_set.to(placed),
            val_set=val_set.to(placed),
            augment=augment,
            val_augment=Augment(),
            generator=torch.Generator().manual_seed(0),
            device=self.device,
            description={},
            epochs=_EPOCHS,
            batch_size=batch,
            accumulation=1,
            eval_batch_size=_VAL_BATCH,
            threshold=0.5,
        )


def _first_over(limits: Sequence[float], found: Sequence[float], expected: Sequence[float]) -> int | None:
    for i, (limit, x, y) in enumerate(zip(limits, found, expected, strict=True)):
        # not the other way round: NaN is no pass
        if not abs(x - y) <= limit:
            return i
    return None


def _random_set(num: int, size: int) -> Dataset:
    generator = torch.Generator().manual_seed(num)
    images = torch.randint(256, (num, size, size, 3), dtype=torch.uint8, generator=generator)
    masks = (torch.rand(num, size, size, generator=generator) < 0.2).to(torch.uint8) * 255
    return Dataset(ids=tuple(map(str, range(num))), images=images, masks=masks)
