"""The devices that a config or a command names."""

import torch

from mhsvm.runtime.distributed import World
from mhsvm.text_file import first_line


def build_device(name: str) -> torch.device:
    """Build the device of a name; "auto" is the GPU if there is one.

    Raises:
        ValueError: The device is unknown, or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        # torch's message lists twenty types, most of which no public build of it has
        raise ValueError(
            f"device {name!r} cannot be used here: it is none that torch knows; use auto, cpu, cuda or cuda:N"
        ) from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {first_line(str(error))}") from error
    return device


def build_own_device(name: str, world: World) -> torch.device:
    """Build the device of one process of a training; several processes get a GPU of their machine each.

    Raises:
        ValueError: The device is unknown or not there, names one GPU for several processes, or there are too few.
    """
    device = build_device(name)
    if world.size == 1 or device.type != "cuda":
        return device
    # None for a device without a number, against torch's annotation
    index: int | None = device.index
    if index is not None:
        raise ValueError(f"run.device {name} is one GPU, and this training has {world.size} processes: set it to auto")
    if world.local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"this machine has {torch.cuda.device_count()} GPUs, too few for process {world.local_rank + 1} on it: "
            "start one process for each GPU (nproc_per_node=gpu), or set run.device cpu"
        )
    device = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(device)
    return device
