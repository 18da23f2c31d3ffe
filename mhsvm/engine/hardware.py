"""What a training or a measurement ran on, by its maker's name."""

import platform
import sys
from pathlib import Path

import torch


def device_model(device: torch.device) -> str:
    """Model of a GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def peak_memory() -> float | None:
    """GiB that this process has taken at most: of its GPU where it computes on one, else of the machine.

    None on Windows, which does not tell.
    """
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    if sys.platform == "win32":
        return None
    # Windows has no such module
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
