"""Versions, devices, cores and memory of this machine."""

import getpass
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mhsvm.cgroup import cpu_quota
from mhsvm.text_file import first_line, read_lines
from mhsvm.version import __version__

if TYPE_CHECKING:
    import torch

# Packages that backends depend on.
_PACKAGES = ("triton", "numba", "mamba_ssm", "causal_conv1d")


def num_cores() -> int:
    """Number of cores that this process may use: those of its affinity mask, and no more than a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, cpu_quota() or cores)


def code_version() -> dict[str, str]:
    """Versions of mhsvm and torch, and the commit of a source checkout, or ""."""
    import torch

    folder = Path(__file__).resolve().parents[1]
    commit = ""
    if (folder / ".git").exists():
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            commit = subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="replace", check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            commit = ""
    return {"mhsvm": __version__, "commit": commit, "torch": str(torch.__version__)}


def read_versions() -> dict[str, str]:
    """Versions by name, "" for missing packages; "commit" is the commit of a source checkout."""
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
    """Name, model, number of processors (cores or multiprocessors) and memory in bytes of a device."""
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
    """The CPU and all GPUs that torch can use."""
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
    result = subprocess.run(query, capture_output=True, encoding="utf-8", errors="replace", check=False)
    return first_line(result.stdout).strip() if result.returncode == 0 else ""


def _memory_bytes() -> int:
    """Physical memory, or 0 if the system does not report it."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def device_model(device: "torch.device") -> str:
    """Model name of a GPU or of the processor."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = read_lines(info) if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def peak_memory() -> float | None:
    """Peak memory of this process in GiB: on its GPU if it uses one, else in main memory.

    None on Windows without a GPU.
    """
    import torch

    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    if sys.platform == "win32":
        return None
    # this module does not exist on Windows
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def name_user() -> None:
    """Give a user without a name, as of a container, the number as the name: importing MONAI fails without one."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())
