"""Scaling of a training step over several processes, one per GPU; this file is also their program."""

import copy
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import IO

import torch
from torch import Tensor, nn

from benchmarks.fresh import fresh_step, random_batch
from benchmarks.model_check import OUTPUT_LIMITS, WrongNetwork, autocast
from mhsvm.layers import DropPath
from mhsvm.runtime.distributed import World, open_world
from mhsvm.runtime.graphs import WARM_UP_CALLS
from mhsvm.runtime.numerics import numerics
from mhsvm.runtime.timing import Timing, synchronize
from mhsvm.text_file import split_lines
from mhsvm.training.step import TrainStep

log = logging.getLogger(__name__)

# Number of blocks of steps that are timed.
_BLOCKS = 7
# Limit of the relative error of all gradients against one process. Rounding in 16 bits stays below; a missing image or
# a wrong weight does not.
_GRADIENT_LIMITS = {torch.float32: 2e-2, torch.bfloat16: 2e-1}
_SECONDS_AT_MOST = 600


@dataclass(frozen=True)
class ScalingRun:
    """A training step to time in several processes.

    Attributes:
        model: Name of the network.
        device: "cuda", where process i takes GPU i, or "cpu".
        dtype: "float32", or "bfloat16" for autocast.
        mode: Mode of the step, see `TrainStep`.
        batch: Images of each process.
        size: Side in pixels.
        steps: Number of steps of a timed block.
    """

    model: str
    device: str
    dtype: str
    mode: str
    batch: int
    size: int
    steps: int = 10

    def time(self, num_processes: int) -> Timing:
        """Seconds of a step of `num_processes * batch` images.

        Raises:
            WrongNetwork: Loss or gradients are not those of one process with the whole batch, or a process fails.
        """
        with ExitStack() as stack:
            outputs = [
                stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
                for _ in range(2 * num_processes)
            ]
            port = _free_port()
            started = [
                self._start(rank, num_processes, port, outputs[2 * rank], outputs[2 * rank + 1])
                for rank in range(num_processes)
            ]
            try:
                failed = _wait(started)
            finally:
                for process in started:
                    process.kill()
                    process.wait()
            if failed is not None:
                outputs[2 * failed + 1].seek(0)
                reason = outputs[2 * failed + 1].read().strip()[-600:] or f"not done in {_SECONDS_AT_MOST} s"
                raise WrongNetwork(f"{self.model} is not timed, number of processes {num_processes}: {reason}")
            outputs[0].seek(0)
            return Timing(tuple(json.loads(split_lines(outputs[0].read())[-1])))

    def _start(self, rank: int, size: int, port: int, stdout: IO, stderr: IO) -> subprocess.Popen:
        """As torchrun starts a process."""
        words = [sys.executable, "-m", "benchmarks.scaling", json.dumps(asdict(self))]
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        environment = {**os.environ, **{name: str(value) for name, value in places.items()}}
        return subprocess.Popen(words, env=environment, stdout=stdout, stderr=stderr)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def _wait(started: Sequence[subprocess.Popen]) -> int | None:
    """Until all have ended; the number of the first that fails, or of one that takes too long, else None."""
    deadline = time.monotonic() + _SECONDS_AT_MOST
    while True:
        codes = [process.poll() for process in started]
        for rank, code in enumerate(codes):
            if code or (code is None and time.monotonic() > deadline):
                return rank
        if None not in codes:
            return None
        time.sleep(0.05)


def scaling_rows(run: ScalingRun, numbers: Sequence[int]) -> list[dict]:
    """Time a step in one process and in each number of them.

    Returns:
        A row for each number of processes, with images per second and their fraction of linear scaling.
    Raises:
        WrongNetwork: See `ScalingRun.time`.
    """
    alone = run.batch / _timed(run, 1).median
    rows = []
    for number in numbers:
        timing = _timed(run, number)
        rate = number * run.batch / timing.median
        rows.append(
            {
                "model": run.model,
                "phase": f"training step, {number} processes",
                "batch": number * run.batch,
                **timing.to_dict(),
                "images_per_s": rate,
                "of_linear": rate / (number * alone),
            }
        )
    return rows


def _timed(run: ScalingRun, number: int) -> Timing:
    start = time.monotonic()
    timing = run.time(number)
    taken = time.monotonic() - start
    log.info("%s, number of processes %d: steps of %.4g s, %.0f s with start", run.model, number, timing.median, taken)
    return timing


def main() -> None:
    """One of the processes: check a step, time steps, and let the first one print the seconds."""
    run = ScalingRun(**json.loads(sys.argv[1]))
    with open_world() as world, numerics(tf32=False, deterministic=False):
        seconds = _check_and_time(run, world)
        if world.is_first:
            print(json.dumps(seconds))


def _check_and_time(run: ScalingRun, world: World) -> list[float]:
    dtype = getattr(torch, run.dtype)
    device = torch.device(run.device, world.local_rank) if run.device == "cuda" else torch.device(run.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    images, targets = random_batch(world.size * run.batch, run.size)
    sum_up = world.sum if world.size > 1 else None
    step = fresh_step(run.model, device=device, dtype=dtype, mode=run.mode, sum_up=sum_up)
    mine = world.shard(torch.arange(len(images)))
    batch = images[mine].to(device), targets[mine].to(device)
    _check(step, batch, images, targets, world, dtype)
    return _take_times(step, batch, 1 / world.size, run.steps)


def _check(
    step: TrainStep, batch: tuple[Tensor, Tensor], images: Tensor, targets: Tensor, world: World, dtype: torch.dtype
) -> None:
    """Let the first process take the whole batch by itself, and compare."""
    drop_paths = [module for module in step.model.modules() if isinstance(module, DropPath)]
    for module in drop_paths:
        module.eval()
    alone = copy.deepcopy(step.model) if world.is_first else None
    found = float(step(*batch, weight=1 / world.size)[0])
    if alone is not None:
        expected = _differentiate(alone, step.loss, images, targets, like=batch[0], dtype=dtype)
        limit = OUTPUT_LIMITS[dtype]
        if not abs(found - expected) <= limit * abs(expected):
            raise SystemExit(f"the loss is {found:.6g} where one process has {expected:.6g}")
        error = _gradient_error(step.model, alone)
        if not error <= _GRADIENT_LIMITS[dtype]:
            raise SystemExit(f"the gradients are off by {error:.1e} of their norm in one process")
    for module in drop_paths:
        module.train()


def _differentiate(
    model: nn.Module, loss: nn.Module, images: Tensor, targets: Tensor, *, like: Tensor, dtype: torch.dtype
) -> float:
    """Mean loss of all images, with its gradients, in batches as large as `like`."""
    total = 0.0
    for x, t in zip(images.split(len(like)), targets.split(len(like)), strict=True):
        x, t = x.to(like.device), t.to(like.device)
        with autocast(like.device, dtype):
            logits = model(x)
        share = loss(logits, t) * (len(x) / len(images))
        share.backward()
        total += share.item()
    return total


def _gradient_error(model: nn.Module, truth: nn.Module) -> float:
    pairs = [(p.grad.double(), q.grad.double()) for p, q in zip(model.parameters(), truth.parameters(), strict=True)]
    distance = sum(float((p - q).square().sum()) for p, q in pairs)
    return (distance / sum(float(q.square().sum()) for _, q in pairs)) ** 0.5


def _take_times(step: TrainStep, batch: tuple[Tensor, Tensor], share: float, num_steps: int) -> list[float]:
    for _ in range(WARM_UP_CALLS + num_steps):
        step(*batch, weight=share)
    seconds = []
    for _ in range(_BLOCKS):
        synchronize(step.device)
        start = time.perf_counter()
        for _ in range(num_steps):
            step(*batch, weight=share)
        synchronize(step.device)
        seconds.append((time.perf_counter() - start) / num_steps)
    return seconds


if __name__ == "__main__":
    main()
