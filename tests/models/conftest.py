from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from mhsvm.layers import RouteS6
from mhsvm.models import create_model
from mhsvm.models.registry import MODELS
from mhsvm.ops import list_backends
from mhsvm.ops.backends import find_backend
from mhsvm.runtime.numerics import numerics


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests with `backend` and `device` over all backends with gradients that run here, each on its device."""
    if not {"backend", "device"} <= set(metafunc.fixturenames):
        return
    cases = []
    for backend in list_backends():
        if not find_backend(backend).gradients:
            continue
        on_gpu = backend in ("cuda", "triton", "mamba_ssm") and torch.cuda.is_available()
        device = torch.device("cuda" if on_gpu else "cpu")
        cases.append(pytest.param(backend, device, id=backend, marks=[pytest.mark.gpu] if on_gpu else []))
    metafunc.parametrize(("backend", "device"), cases)


@pytest.fixture
def _full_float32() -> Iterator[None]:
    """Disable TF32, which rounds the factors of float32 convolutions on a GPU by default."""
    with numerics(tf32=False, deterministic=False):
        yield


@pytest.fixture
def small_model() -> Callable[..., nn.Module]:
    """Build a small network of any kind; weights and direct paths are spread so that every part has an effect."""

    def build(name: str, **changes) -> nn.Module:
        torch.manual_seed(0)
        model = create_model(name, **{**MODELS[name].small, **changes}).eval()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.Linear):
                    module.weight.mul_(10)
                elif isinstance(module, RouteS6):
                    module.D.uniform_(0.5, 1.5)
        return model

    return build


@pytest.fixture
def published_state() -> Callable[..., dict[str, Tensor]]:
    """Random weights with the keys and shapes of the published file of a network, duplicates included."""

    def publish(name: str, model: nn.Module) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        published = MODELS[name].formats[0]
        prefix, state = published.prefix, {}
        for source in published.sources(model).values():
            for key in source.keys:
                value = 0.1 * torch.randn(source.shape, generator=generator)
                state[prefix + key] = value
                if ".mambaeng." in key:
                    state[prefix + key.replace(".mambaeng.", ".scanning.seq2seq_engine.")] = value
                if key.endswith(".x_ssproj.weight"):
                    state[prefix + key.replace(".x_ssproj.weight", ".x_ssproj_W")] = value
        return state

    return publish
