import pytest
import torch

from mhsvm.ops import triton_support

U, A = torch.ones(1, 1, 3), -torch.ones(1, 1)


@pytest.fixture(autouse=True)
def _not_interpreted(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    triton_support._missing_for_gpu.cache_clear()
    yield
    triton_support._missing_for_gpu.cache_clear()


@pytest.fixture
def _machine_with_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(torch.version, "hip", None)
    # torch 2.6 comes with an old version
    monkeypatch.setattr(pytest.importorskip("triton"), "__version__", "3.3.0")


def test_without_triton(monkeypatch):
    monkeypatch.setattr(triton_support, "_is_installed", lambda: False)
    assert triton_support.unavailable_reason() == "the package triton is missing; on Linux it comes with torch for CUDA"


def test_without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert triton_support.unavailable_reason() == "torch finds no CUDA device"


@pytest.mark.usefixtures("_machine_with_gpu")
def test_with_a_triton_too_old(monkeypatch):
    monkeypatch.setattr(pytest.importorskip("triton"), "__version__", "3.2.0")
    reason = triton_support.unavailable_reason()
    assert reason == "Triton is 3.2.0: install torch 2.7 or newer, which brings Triton 3.3"


@pytest.mark.usefixtures("_machine_with_gpu")
def test_on_a_gpu_of_amd(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "torch is built for AMD's" in triton_support.unavailable_reason()


@pytest.mark.usefixtures("_machine_with_gpu")
def test_without_compiler(monkeypatch):
    monkeypatch.setattr(triton_support.shutil, "which", lambda name: None)
    assert "a C compiler: install the package gcc" in triton_support.unavailable_reason()


@pytest.mark.usefixtures("_machine_with_gpu")
def test_without_headers(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(triton_support.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert "install the package python3." in triton_support.unavailable_reason()
    (tmp_path / "Python.h").touch()
    triton_support._missing_for_gpu.cache_clear()
    assert triton_support.unavailable_reason() is None


def test_inputs_it_cannot_take(monkeypatch):
    assert triton_support.unsupported_scan(U, A) == "its kernels run on a GPU, and the tensor is not on one"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton_support.unsupported_scan(U, A) is None
    assert "the tensor is float64" in triton_support.unsupported_scan(U.double(), A)
    message = "its kernels hold at most 64 states, and A has 65"
    assert triton_support.unsupported_scan(U, -torch.ones(1, 65)) == message


def test_an_empty_batch_is_left_to_other_backends(monkeypatch):
    """A tile of no sample would divide by zero, as seen on a GPU."""
    monkeypatch.setattr(triton_support, "unsupported_by_triton", lambda x: None)
    assert triton_support.unsupported_scan(torch.ones(1, 3, 2), torch.ones(2, 4)) is None
    assert triton_support.unsupported_scan(torch.ones(0, 3, 2), torch.ones(2, 4)) == "its kernels take no empty batch"
