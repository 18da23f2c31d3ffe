"""Why kernels in CUDA C++ cannot run. There is no GPU: the libraries are replaced."""

import pytest
import torch

from mhsvm.ops.cuda import support
from mhsvm.ops.cuda.driver import DriverError
from mhsvm.ops.cuda.nvrtc import NvrtcError


class Compiler:
    version = (12, 8)
    architectures = (80, 90, 120)


def clear():
    for function in (support._missing, support._unavailable, support._unsupported_device):
        function.cache_clear()


@pytest.fixture
def machine(monkeypatch):
    """Replace the GPU, the driver and NVRTC."""

    def make(*capabilities, driver=(12, 8), compiler=Compiler, hip=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device])
        monkeypatch.setattr(torch.version, "hip", hip)

        def version():
            if isinstance(driver, Exception):
                raise driver
            return driver

        def load():
            if isinstance(compiler, Exception):
                raise compiler
            return compiler

        monkeypatch.setattr(support, "driver_version", version)
        monkeypatch.setattr(support, "load_nvrtc", load)
        clear()
        return support.unavailable_reason()

    yield make
    clear()


def test_a_machine_that_can_has_no_reason(machine):
    assert machine((9, 0)) is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"driver": (11, 8)}, "the driver supports CUDA 11.8, and machine code of NVRTC 12.8 needs one for CUDA 12"),
        ({"driver": DriverError("no driver")}, "no driver"),
        ({"compiler": NvrtcError("no NVRTC")}, "no NVRTC"),
        ({"hip": "6.0"}, "torch is built for AMD's"),
    ],
)
def test_reasons_of_a_machine(machine, changed, reason):
    assert reason in machine((9, 0), **changed)


@pytest.mark.parametrize(
    ("capability", "reason"),
    [
        ((7, 5), "need compute capability 8.0 or newer, and the GPU has 7.5"),
        ((15, 0), r"NVRTC 12.8 does not know GPUs of compute capability 15.0, only up to 12.0: install a newer torch"),
    ],
)
def test_reasons_of_a_gpu(machine, capability, reason):
    assert reason in machine(capability)
    # one of several GPUs can: the others have the reason
    assert machine(capability, (9, 0)) is None
    assert reason in support._unsupported_device(0)
    assert support._unsupported_device(1) is None


def test_no_gpu(machine):
    assert machine() == "torch finds no CUDA device"


def test_reasons_of_a_tensor():
    assert "the tensor is not on one" in support.unsupported_by_cuda(torch.ones(1))
