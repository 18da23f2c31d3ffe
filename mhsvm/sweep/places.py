"""Places for the runs of a sweep: all GPUs, several small runs per GPU, or the CPU."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from mhsvm.openmp import set_by_user
from mhsvm.system import num_cores

# Smaller networks leave most of a GPU idle, because their steps are sequences of short kernels.
SMALL_NETWORK = 1_000_000
# UltraLight's total steps per second on an H200 with MPS are 196, 372 and 476 for 1, 4 and 8 trainings. Without MPS the
# total stays at 196: a second run uses only the pauses of the first (validation, saving, start).
SMALL_RUNS_PER_GPU, SMALL_RUNS_IN_TURNS = 8, 2


@dataclass(frozen=True)
class Place:
    """Room for one run at a time.

    Attributes:
        device: Name for messages: "cuda:0", "cpu", …
        environment: Additional environment variables of a process at this place.
    """

    device: str
    environment: Mapping[str, str] = field(default_factory=dict)


def find_places(device: str, *, per_device: int | None, num_parameters: int, at_once: bool) -> list[Place]:
    """List the places of a sweep, cycling over the devices.

    Args:
        device: `run.device` of the configs. "auto" and "cuda" are all visible GPUs, and "auto" is the CPU if there is
            no GPU; another name is a single device for all runs.
        per_device: Number of concurrent runs per device. None takes one. On a GPU, if the largest network has fewer
            than `SMALL_NETWORK` parameters, it takes up to `SMALL_RUNS_PER_GPU` (or `SMALL_RUNS_IN_TURNS`), as long
            as there are two cores for each run.
        num_parameters: Parameters of the largest network.
        at_once: Whether processes run on one GPU at the same time (see `mhsvm.sweep.mps`) or in turn.
    Raises:
        ValueError: The device does not exist.
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
    # without a limit, each run would start as many threads, and torch.compile processes, as there are cores
    threads = str(max(1, num_cores() // (per_device * len(single))))
    shared = {name: set_by_user(name) or threads for name in ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")}
    return [Place(place.device, {**place.environment, **shared}) for place in single] * per_device


def _check_device(name: str, num_gpus: int) -> None:
    """Check a device like `mhsvm.assemble.build_device`, but without allocating GPU memory during the sweep."""
    if name == "auto":
        return
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"run.device {name!r} is no device: take auto, cpu or cuda:0") from error
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        raise ValueError(
            f"run.device {name} does not exist: {num_gpus} GPUs are visible. Take auto, cpu or another index"
        )
