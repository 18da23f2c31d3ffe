import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch is loaded: on tensors as small as the tests', sharing out costs more than it gains.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from mhsvm.registry import Registry
from mhsvm.training.step import TrainStep

pytest_plugins = [f"tests.fixtures.{name}" for name in ("backends", "browser", "files", "jobs", "workplace")]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of Triton kernels and of GPUs where they cannot run; with a GPU, kernels are tested on it."""
    on_gpu, interpreted = torch.cuda.is_available(), os.environ.get("TRITON_INTERPRET") == "1"
    for item in items:
        if item.get_closest_marker("interpreter") and on_gpu and not interpreted:
            item.add_marker(pytest.mark.gpu)
        elif item.get_closest_marker("interpreter") and not interpreted:
            item.add_marker(pytest.mark.skip(reason="needs Triton's interpreter or a GPU"))
        elif item.get_closest_marker("gpu") and not on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def kernel_device() -> torch.device:
    """Where Triton kernels run: on the GPU, or in the interpreter on the CPU."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return torch.device("cpu" if interpreted or not torch.cuda.is_available() else "cuda")


@pytest.fixture
def _two_threads() -> Iterator[None]:
    """Two threads of torch, for one test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the published models' numbers and of real images, named by MHSVM_SHARED."""
    folder = os.environ.get("MHSVM_SHARED")
    if not folder:
        reason = "needs the shared fixtures: set MHSVM_SHARED to their folder"
        if os.environ.get("MHSVM_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(folder)


@pytest.fixture(scope="session")
def _triton() -> None:
    """A Triton that can run our kernels in its interpreter."""
    triton = pytest.importorskip("triton", reason="Triton comes with torch on Linux only")
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):
        pytest.skip("needs Triton 3.3, which comes with torch 2.7")


@pytest.fixture
def registered() -> Iterator[Callable[[Registry, str, object], None]]:
    """A function that registers an entry for one test."""
    added = []

    def register(registry: Registry, name: str, entry: object) -> None:
        registry.add(name, entry)
        added.append((registry, name))

    yield register
    for registry, name in added:
        registry.remove(name)


@pytest.fixture
def signal_at_step(monkeypatch) -> Callable[[int, int], None]:
    """A function that makes the process send itself a signal in its n-th optimizer step from now."""

    def arm(num_steps: int, signum: int) -> None:
        original, taken = TrainStep.__call__, []

        def counting(*args, **kwargs):
            taken.append(1)
            if len(taken) == num_steps:
                os.kill(os.getpid(), signum)
            return original(*args, **kwargs)

        monkeypatch.setattr(TrainStep, "__call__", counting)

    return arm


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    """A function that holds two trees of tensors and plain values to be the same, bit for bit."""

    def check(first, second, where="checkpoint"):
        assert type(first) is type(second), where
        if isinstance(first, torch.Tensor):
            assert torch.equal(first, second), where
        elif isinstance(first, dict):
            assert first.keys() == second.keys(), where
            for key in first:
                check(first[key], second[key], f"{where}[{key!r}]")
        elif isinstance(first, list):
            assert len(first) == len(second), where
            for index, items in enumerate(zip(first, second, strict=True)):
                check(*items, f"{where}[{index}]")
        else:
            assert first == second, where

    return check
