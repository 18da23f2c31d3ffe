"""What runs here: versions of everything that matters to the scans, and the devices."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess

import torch

from mhsvm.engine.checkpoint import code_version
from mhsvm.engine.hardware import device_model

# Packages that a backend stands on.
_PACKAGES = ("triton", "numba", "mamba_ssm", "causal_conv1d")


def read_versions() -> dict[str, str]:
    """Name -> version, "" for what is not there; "commit" is that of a source checkout."""
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


def describe_device(device: torch.device) -> dict[str, str | int]:
    """Name in torch, model, processors (cores or multiprocessors) and memory in bytes of one device."""
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


def list_devices() -> tuple[torch.device, ...]:
    """The CPU and every GPU that torch sees."""
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
