"""Whether Triton's kernels can run on this machine, and on these inputs."""

import functools
import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch
from torch import Tensor

from mhsvm.ops.traced_constant import traced_constant

_MAX_STATES = 64
# The first with tuples in kernels.
_OLDEST_TRITON = (3, 3)


# A constant for torch.compile, which cannot trace how a compiler is looked for.
@traced_constant
def unavailable_reason() -> str | None:
    """Why the kernels cannot run on this machine, or None if they can."""
    if not _is_installed():
        return "the package triton is missing; on Linux it comes with torch for CUDA"
    return None if interpreted() else _missing_for_gpu()


def unsupported_by_triton(x: Tensor, *arguments: object, **options: object) -> str | None:
    """Why kernels that compute in float32 on a GPU cannot take an operation's first argument, or None if they can."""
    if not x.is_cuda and not interpreted():
        return "its kernels run on a GPU, and the tensor is not on one"
    if x.dtype == torch.float64:
        return "its kernels compute in float32, and the tensor is float64"
    return None


def unsupported_scan(u: Tensor, A: Tensor) -> str | None:
    """Why the scan's kernels cannot take these inputs, or None if they can."""
    reason = unsupported_by_triton(u)
    if reason is None and A.shape[-1] > _MAX_STATES:
        return f"its kernels hold at most {_MAX_STATES} states, and A has {A.shape[-1]}"
    if reason is None and not u.numel():
        return "its kernels take no empty batch"
    return reason


def interpreted() -> bool:
    """Whether Triton runs its kernels on the CPU, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _missing_for_gpu() -> str | None:
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if torch.version.hip:
        return "the kernels are made for GPUs of NVIDIA, and torch is built for AMD's"
    import triton

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < _OLDEST_TRITON:
        oldest = ".".join(map(str, _OLDEST_TRITON))
        return f"Triton is {triton.__version__}: install torch 2.7 or newer, which brings Triton {oldest}"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler: install the package gcc, or name one in the environment variable CC"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return f"Triton needs the headers of Python {version}: install the package python{version}-dev"
    return None
