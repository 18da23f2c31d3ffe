"""NVRTC: where it is looked for, and its errors. Those that compile need an NVRTC, but no GPU."""

import ctypes

import pytest
import torch

from mhsvm.ops.cuda import nvrtc
from mhsvm.ops.cuda.nvrtc import Nvrtc, NvrtcError, candidates, load_nvrtc

SOURCE = '#include "twice.cuh"\nextern "C" __global__ void run(float* x) { x[threadIdx.x] = twice(x[threadIdx.x]); }'
HEADERS = {"twice.cuh": "__device__ float twice(float x) { return 2.f * x; }"}


@pytest.fixture
def compiler() -> Nvrtc:
    try:
        return load_nvrtc()
    except NvrtcError as error:
        pytest.skip(str(error))


@pytest.fixture
def _fresh():
    load_nvrtc.cache_clear()
    yield
    load_nvrtc.cache_clear()


def test_compiles_to_machine_code(compiler):
    code = compiler.compile(SOURCE, "run.cu", ["-arch=sm_80"], HEADERS)
    assert code[:4] == b"\x7fELF"
    assert b"run" in code
    assert 80 in compiler.architectures


def test_an_error_of_the_source_is_quoted(compiler):
    with pytest.raises(NvrtcError, match=r'does not compile run.cu: run.cu\(1\).*identifier "twice" is undefined'):
        compiler.compile(SOURCE.partition("\n")[2], "run.cu", ["-arch=sm_80"], {})


def test_an_unknown_architecture_is_an_error(compiler):
    with pytest.raises(NvrtcError, match="NVRTC"):
        compiler.compile(SOURCE, "run.cu", ["-arch=sm_10"], HEADERS)


@pytest.mark.usefixtures("_fresh")
def test_a_missing_library_is_a_reason(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(nvrtc, "candidates", lambda major: iter([f"libnvrtc-that-is-missing.so.{major}"]))
    with pytest.raises(
        NvrtcError, match=r"NVRTC of CUDA 12 is not found .*: install the package nvidia-cuda-nvrtc-cu12"
    ):
        load_nvrtc()


@pytest.mark.usefixtures("_fresh")
def test_torch_without_cuda_is_a_reason(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(NvrtcError, match="torch is built without CUDA"):
        load_nvrtc()


@pytest.mark.parametrize(("major", "folder"), [("12", "cuda_nvrtc"), ("13", "cu13")])
def test_the_wheels_of_torch_are_looked_through(tmp_path, monkeypatch, major, folder):
    library = tmp_path / folder / "lib" / f"libnvrtc.so.{major}"
    library.parent.mkdir(parents=True)
    for name in (library.name, f"libnvrtc.alt.so.{major}", f"libnvrtc-builtins.so.{major}.0"):
        (library.parent / name).touch()

    class Wheels:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(nvrtc.importlib.util, "find_spec", lambda name: Wheels)
    monkeypatch.setattr(nvrtc.sys, "platform", "linux")
    found = list(candidates(major))
    assert found[0] == f"libnvrtc.so.{major}"
    assert [x for x in found if str(tmp_path) in x] == [str(library)]


@pytest.mark.usefixtures("_fresh")
def test_builtins_are_loaded_first(tmp_path, monkeypatch):
    """NVRTC 13 has no search path of its own."""
    loaded = []

    def load(name):
        loaded.append(name)
        raise OSError("no library")

    library, builtins = tmp_path / "libnvrtc.so.13", tmp_path / "libnvrtc-builtins.so.13.0"
    builtins.touch()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(nvrtc, "candidates", lambda major: iter(["libnvrtc.so.13", str(library)]))
    monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(NvrtcError, match="no library"):
        load_nvrtc()
    assert loaded == ["libnvrtc.so.13", str(builtins)]


def test_other_systems_have_none(monkeypatch):
    monkeypatch.setattr(nvrtc.sys, "platform", "win32")
    assert not list(candidates("13"))
