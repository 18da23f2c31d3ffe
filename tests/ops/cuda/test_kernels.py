"""Compiling ahead and launching; the compiler and the driver are replaced."""

import ctypes
from pathlib import Path

import pytest
import torch

from mhsvm.ops.cuda import kernels
from mhsvm.ops.cuda.cubins import Variant
from mhsvm.ops.cuda.nvrtc import NvrtcError

VARIANTS = [Variant(Path("run.cu"), "run", (("N", n),), 32, 0) for n in range(3)]
GPU = torch.device("cuda", 0)


class Nothing(ctypes.Structure):
    _fields_ = ()


@pytest.fixture
def compiled(monkeypatch):
    compiled = []

    def compile_one(variant, architecture):
        if variant.constants == (("N", 2),):
            raise NvrtcError("N is too large")
        compiled.append((variant, architecture))
        return b"code"

    monkeypatch.setattr(kernels, "cubin", compile_one)
    monkeypatch.setattr(kernels, "is_kept", lambda *kernel: kernel in compiled)
    monkeypatch.setattr(kernels, "_architecture", lambda device: 90)
    kernels._say_once.cache_clear()
    return compiled


def test_recorded_kernels_are_not_launched(monkeypatch):
    monkeypatch.setattr(kernels, "_load", lambda *arguments: pytest.fail("a kernel was loaded"))
    with kernels.recorded() as noted:
        for variant in (*VARIANTS, VARIANTS[0]):
            kernels.launch(variant, 1, Nothing(), GPU)
    assert list(noted) == [(variant, 0) for variant in VARIANTS]


def test_missing_kernels_are_compiled_side_by_side(compiled, capsys):
    wanted = [(VARIANTS[0], 0), (VARIANTS[1], 0), (VARIANTS[0], 1)]
    assert kernels.compile_kernels(wanted, num_threads=2) == 2
    assert set(compiled) == {(VARIANTS[0], 90), (VARIANTS[1], 90)}
    assert kernels.compile_kernels(wanted, num_threads=2) == 0
    assert capsys.readouterr().err.count("compiling for this GPU (the first use only)") == 1


def test_a_kernel_that_fails_is_left_to_its_launch(compiled, caplog):
    kernels.compile_kernels([(VARIANTS[2], 0), (VARIANTS[0], 0)], num_threads=1)
    assert compiled == [(VARIANTS[0], 90)]
    assert "left to its launch: N is too large" in caplog.text
