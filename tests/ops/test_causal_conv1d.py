"""Where the package causal_conv1d is taken, by a stand-in for it."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F

from mhsvm.layers import Mamba, mamba
from mhsvm.ops import causal_conv1d
from mhsvm.ops.causal_conv1d import find_causal_conv1d

ON_GPU = types.SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)


@pytest.fixture(autouse=True)
def _fresh_import(monkeypatch):
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    causal_conv1d._import.cache_clear()
    yield
    causal_conv1d._import.cache_clear()


@pytest.fixture
def package(monkeypatch):
    """Demands what the kernels demand, and convolves tap by tap."""

    def causal_conv1d_fn(x, weight, bias=None, activation=None):
        assert x.is_contiguous()
        assert weight.is_contiguous()
        assert weight.shape[0] == x.shape[1]
        assert activation == "silu"
        taps = F.pad(x, (weight.shape[1] - 1, 0)).unfold(2, weight.shape[1], 1)  # (b, d, l, w)
        return F.silu((taps * weight[:, None]).sum(-1) + bias[:, None])

    module = types.ModuleType("causal_conv1d")
    module.causal_conv1d_fn = causal_conv1d_fn
    monkeypatch.setitem(sys.modules, "causal_conv1d", module)
    return causal_conv1d_fn


def test_it_is_taken_where_mamba_ssm_is_asked_for(package, monkeypatch):
    assert find_causal_conv1d("mamba_ssm", ON_GPU, width=4) is package
    assert find_causal_conv1d("auto", ON_GPU, width=4) is None
    monkeypatch.setenv("MHSVM_BACKEND", "mamba_ssm")
    assert find_causal_conv1d("auto", ON_GPU, width=4) is package
    assert find_causal_conv1d("chunked", ON_GPU, width=4) is None


@pytest.mark.parametrize(
    ("device", "dtype", "width"),
    [("cpu", torch.float32, 4), ("cuda", torch.float64, 4), ("cuda", torch.float32, 5), ("cuda", torch.float32, 1)],
)
def test_calls_that_it_does_not_take(package, device, dtype, width):
    x = types.SimpleNamespace(device=torch.device(device), dtype=dtype)
    assert find_causal_conv1d("mamba_ssm", x, width=width) is None


def test_it_need_not_be_installed(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "causal_conv1d", raising=False)
    assert find_causal_conv1d("mamba_ssm", ON_GPU, width=4) is None


def test_a_broken_one_is_an_error(monkeypatch):
    # without the function that is asked for
    monkeypatch.setitem(sys.modules, "causal_conv1d", types.ModuleType("causal_conv1d"))
    with pytest.raises(ValueError, match="causal_conv1d is installed and cannot be imported: cannot import name"):
        find_causal_conv1d("mamba_ssm", ON_GPU, width=4)


@pytest.mark.parametrize("width", [2, 4])
def test_a_mamba_block_computes_the_same_with_it(package, monkeypatch, width):
    torch.manual_seed(0)
    block = Mamba(6, d_state=3, d_conv=width, backend="reference").double()
    x = torch.randn(2, 7, 6, dtype=torch.float64, requires_grad=True)
    weights = tuple(block.parameters())
    expected = block(x)
    expected_gradients = torch.autograd.grad(expected.square().sum(), (x, *weights))
    monkeypatch.setattr(mamba, "find_causal_conv1d", lambda backend, u, *, width: package)
    actual = block(x)
    gradients = torch.autograd.grad(actual.square().sum(), (x, *weights))
    torch.testing.assert_close((actual, *gradients), (expected, *expected_gradients))
