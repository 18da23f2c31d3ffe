"""Where the runs of a sweep go: the GPUs there are, several small runs to one, or the CPU."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from mhsvm.system import num_cores

# Networks below this leave most of a GPU idle: a step of theirs is many short kernels one after another.
SMALL_NETWORK = 1_000_000
# UltraLight's steps a second on an H200, an early version, of 1, 4 and 8 trainings together: 196, 372, 476 with MPS; in
# turns 196, 196, where only the pauses of one (validation, saving, start) are the other's time.
SMALL_RUNS_PER_GPU, SMALL_RUNS_IN_TURNS = 8, 2


@dataclass(frozen=True)
class Place:
    """Room for one run at a time.

    Attributes:
        device: For people: "cuda:0", "cpu", …
        environment: What a process gets on top of this one's environment to run there.
    """

    device: str
    environment: Mapping[str, str] = field(default_factory=dict)


def find_places(device: str, *, per_device: int | None, num_parameters: int, at_once: bool) -> list[Place]:
    """List the places of a sweep, device after device in turn.

    Args:
        device: `run.device` of its configs: "auto" and "cuda" are every GPU that this process sees, "auto" without
            one is the CPU; any other names the one device that all runs share.
        per_device: Runs side by side on a device. None: one; on a GPU up to `SMALL_RUNS_PER_GPU`, or
            `SMALL_RUNS_IN_TURNS`, if the largest network has fewer than `SMALL_NETWORK` parameters, as far as there
            are two processors for each run.
        num_parameters: Of the largest network.
        at_once: Processes that share a GPU run on it at the same time, see `mhsvm.sweep.mps`; otherwise in turns.
    Raises:
        ValueError: There is no such device.
    """
    all_gpus = torch.cuda.device_count()
    _check_device(device, all_gpus)
    gpus = all_gpus if device in ("auto", "cuda") else 0
    if per_device is None:
        on_gpu = gpus > 0 or device.startswith("cuda")
        small = on_gpu and num_parameters < SMALL_NETWORK
        most = SMALL_RUNS_PER_GPU if at_once else SMALL_RUNS_IN_TURNS
        per_device = max(1, min(most, num_cores() // 2 // max(1, gpus))) if small else 1
    if gpus:
        names = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")[:gpus]
        single = [Place(f"cuda:{row}", {"CUDA_VISIBLE_DEVICES": name}) for row, name in enumerate(names)]
    else:
        single = [Place("cpu" if device == "auto" else device)]
    if per_device == 1:
        return single
    # otherwise each run would start as many threads, and torch.compile processes, as there are processors
    threads = str(max(1, num_cores() // (per_device * len(single))))
    shared = {name: os.environ.get(name, threads) for name in ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")}
    return [Place(place.device, {**place.environment, **shared}) for place in single] * per_device


def _check_device(name: str, num_gpus: int) -> None:
    """As `mhsvm.assemble.build_device` does, but without taking memory of a GPU for as long as the sweep lasts."""
    if name == "auto":
        return
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"run.device {name!r} is no device: take auto, cpu or cuda:0") from error
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        raise ValueError(f"run.device {name} is not there: this process sees {num_gpus} GPUs")
