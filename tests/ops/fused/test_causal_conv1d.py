"""The causal convolution under torch's compiler, and by a replacement of the package causal_conv1d."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F

from mhsvm.layers import Mamba
from mhsvm.ops.fused import causal_conv1d as module
from mhsvm.ops.fused.causal_conv1d import CAUSAL_CONV1D, causal_conv1d, package_causal_conv1d


def make(b, d, length, taps, *, dtype=torch.float32, device="cpu"):
    """x (b, d, l) as in a block, half of the channels of (b, l, 2d), weight (d, f) and bias (d)."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape, kind=torch.float32):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, kind).requires_grad_()

    return normal(b, length, 2 * d, kind=dtype)[..., d:].mT, normal(d, taps), normal(d)


@pytest.mark.interpreter
def test_triton_is_known_to_torchs_compiler(kernel_device):
    leaves = [leaf.detach().requires_grad_() for leaf in make(2, 12, 9, 4, device=kernel_device)]
    compiled = torch.compile(causal_conv1d, backend="aot_eager", fullgraph=True)
    results = []
    for convolve in (compiled, causal_conv1d):
        y = convolve(*leaves)
        results.append((y, *torch.autograd.grad(y.square().sum(), leaves)))
    torch.testing.assert_close(*results)


def test_shapes_that_do_not_belong_together():
    message = r"x is \(b, d, l\), weight \(d, f\), bias \(d\); received \(1, 4, 9\), \(4, 1, 3\), \(4,\)"
    with pytest.raises(ValueError, match=message):
        causal_conv1d(torch.ones(1, 4, 9), torch.ones(4, 1, 3), torch.ones(4))


@pytest.fixture(autouse=True)
def _fresh_import(monkeypatch):
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    module._import_package.cache_clear()
    yield
    module._import_package.cache_clear()


@pytest.fixture
def package(monkeypatch):
    """Check the package's requirements, and convolve tap by tap."""

    def causal_conv1d_fn(x, weight, bias=None, activation=None):
        assert x.is_contiguous()
        assert weight.is_contiguous()
        assert weight.shape[0] == x.shape[1]
        assert activation == "silu"
        taps = F.pad(x, (weight.shape[1] - 1, 0)).unfold(2, weight.shape[1], 1)  # (b, d, l, f)
        return F.silu((taps * weight[:, None]).sum(-1) + bias[:, None])

    package = types.ModuleType("causal_conv1d")
    package.causal_conv1d_fn = causal_conv1d_fn
    monkeypatch.setitem(sys.modules, "causal_conv1d", package)
    return causal_conv1d_fn


def takes(device="cuda", dtype=torch.float32, taps=4):
    x = types.SimpleNamespace(device=torch.device(device), dtype=dtype)
    return module._package_takes(x, torch.ones(8, taps), torch.ones(8))


@pytest.mark.usefixtures("package")
def test_calls_that_the_package_takes():
    assert takes()
    assert not takes(device="cpu")
    assert not takes(dtype=torch.float64)
    assert not takes(taps=5)
    assert not takes(taps=1)


def test_it_need_not_be_installed(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "causal_conv1d", raising=False)
    assert not takes()


def test_a_broken_one_is_an_error(monkeypatch):
    # without the function that is imported
    monkeypatch.setitem(sys.modules, "causal_conv1d", types.ModuleType("causal_conv1d"))
    with pytest.raises(ValueError, match="causal_conv1d is installed and cannot be imported: cannot import name"):
        takes()


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("width", [2, 4])
def test_a_mamba_block_computes_the_same_with_it(monkeypatch, width):
    torch.manual_seed(0)
    block = Mamba(6, d_state=3, d_conv=width, backend="reference").double()
    x = torch.randn(2, 7, 6, dtype=torch.float64, requires_grad=True)
    weights = tuple(block.parameters())
    expected = block(x)
    expected_gradients = torch.autograd.grad(expected.square().sum(), (x, *weights))
    monkeypatch.setattr(module, "_package_takes", lambda x, weight, bias: True)
    monkeypatch.setattr(CAUSAL_CONV1D, "choose", lambda *args: CAUSAL_CONV1D.implementation("mamba_ssm"))
    assert CAUSAL_CONV1D.implementation("mamba_ssm").run is package_causal_conv1d
    actual = block(x)
    gradients = torch.autograd.grad(actual.square().sum(), (x, *weights))
    torch.testing.assert_close((actual, *gradients), (expected, *expected_gradients))


@pytest.mark.interpreter
def test_more_taps_than_the_kernels_have(kernel_device):
    leaves = make(1, 4, 12, 9, device=kernel_device)
    assert CAUSAL_CONV1D.choose("auto", *leaves).backend == "reference"
    with pytest.raises(ValueError, match="cannot run causal_conv1d: its kernels have at most 8 taps, and weight has 9"):
        causal_conv1d(*leaves, backend="triton")
