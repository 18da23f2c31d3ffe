"""The machine: versions, devices, cores and memory."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mhsvm.version import __version__

if TYPE_CHECKING:
    import torch

# Packages that a backend stands on.
_PACKAGES = ("triton", "numba", "mamba_ssm", "causal_conv1d")


def num_cores() -> int:
    """Cores that this process may use, which a container or a scheduler can have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def code_version() -> dict[str, str]:
    """Versions of mhsvm and torch, and the commit of a source checkout ("" where there is none)."""
    import torch

    folder = Path(__file__).resolve().parents[1]
    commit = ""
    if (folder / ".git").exists():
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            commit = ""
    return {"mhsvm": __version__, "commit": commit, "torch": str(torch.__version__)}


def read_versions() -> dict[str, str]:
    """Name -> version, "" for what is not there; "commit" is that of a source checkout."""
    import torch

    code = code_version()
    return {
        "mhsvm": code["mhsvm"],
        "commit": code["commit"],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": code["torch"],
        **{name: _package_version(name) for name in _PACKAGES},
        "cuda runtime": torch.version.cuda or "",
        "nvidia driver": _driver_version(),
    }


def describe_device(device: "torch.device") -> dict[str, str | int]:
    """Name in torch, model, processors (cores or multiprocessors) and memory in bytes of one device."""
    import torch

    if device.type != "cuda":
        return {
            "name": str(device),
            "model": device_model(device),
            "processors": os.cpu_count() or 1,
            "threads": torch.get_num_threads(),
            "memory_bytes": _memory_bytes(),
        }
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": str(device),
        "model": device_model(device),
        "processors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
    }


def list_devices() -> tuple["torch.device", ...]:
    """The CPU and every GPU that torch sees."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return torch.device("cpu"), *(torch.device("cuda", index) for index in range(gpus))


def _package_version(name: str) -> str:
    if importlib.util.find_spec(name) is None:
        return ""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _driver_version() -> str:
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    result = subprocess.run(query, capture_output=True, text=True, check=False)
    return result.stdout.splitlines()[0].strip() if result.returncode == 0 and result.stdout else ""


def _memory_bytes() -> int:
    """0 where the system does not tell."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def device_model(device: "torch.device") -> str:
    """Model of a GPU, or of the processor."""
    import torch

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
    import torch

    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    if sys.platform == "win32":
        return None
    # Windows has no such module
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
