"""Whether kernels in CUDA C++ can be compiled and run on this machine, and on a tensor."""

import functools

import torch
from torch import Tensor

from mhsvm.ops.cuda.driver import DriverError, driver_version
from mhsvm.ops.cuda.nvrtc import NvrtcError, load_nvrtc
from mhsvm.ops.traced_constant import traced_constant

_OLDEST = (8, 0)


# A constant for torch.compile, which cannot trace how libraries are loaded.
@traced_constant
def unavailable_reason() -> str | None:
    """Why the kernels cannot run on this machine, or None if they can on one of its GPUs."""
    return _unavailable()


@functools.cache
def _unavailable() -> str | None:
    reason = _missing()
    if reason is not None:
        return reason
    reasons = [_unsupported_device(device) for device in range(torch.cuda.device_count())]
    return None if None in reasons else reasons[0]


def unsupported_by_cuda(x: Tensor) -> str | None:
    """Why kernels that compute in float32 on a GPU cannot take a tensor, or None if they can."""
    if not x.is_cuda:
        return "its kernels run on a GPU, and the tensor is not on one"
    if x.dtype == torch.float64:
        return "its kernels compute in float32, and the tensor is float64"
    # of several GPUs; where none can, the table of backends says why
    return None if unavailable_reason() is not None else _unsupported_device(x.device.index)


@functools.cache
def _missing() -> str | None:
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if torch.version.hip:
        return "the kernels are made for GPUs of NVIDIA, and torch is built for AMD's"
    try:
        nvrtc, driver = load_nvrtc().version, driver_version()
    except (NvrtcError, DriverError) as error:
        return str(error)
    if driver[0] < nvrtc[0]:
        return (
            f"the driver supports CUDA {_dotted(driver)}, and machine code of NVRTC {_dotted(nvrtc)} needs one for "
            f"CUDA {nvrtc[0]}: update the NVIDIA driver"
        )
    return None


@traced_constant
@functools.cache
def _unsupported_device(device: int) -> str | None:
    return _unsupported_capability(*torch.cuda.get_device_capability(device))


def _unsupported_capability(major: int, minor: int) -> str | None:
    if (major, minor) < _OLDEST:
        return f"its kernels need compute capability 8.0 or newer, and the GPU has {major}.{minor}"
    nvrtc = load_nvrtc()
    if 10 * major + minor not in nvrtc.architectures:
        return (
            f"NVRTC {_dotted(nvrtc.version)} does not know GPUs of compute capability {major}.{minor}, only up to "
            f"{nvrtc.architectures[-1] / 10:.1f}: install a newer torch"
        )
    return None


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
