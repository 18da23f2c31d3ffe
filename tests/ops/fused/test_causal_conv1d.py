"""The convolution of our own in Triton, and where the package causal_conv1d is taken, by a stand-in for it."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F

from mhsvm.layers import Mamba
from mhsvm.ops.availability import unavailable_reason
from mhsvm.ops.fused import causal_conv1d
from mhsvm.ops.fused.causal_conv1d import composed_causal_conv1d, find_causal_conv1d
from mhsvm.ops.fused.causal_conv1d_launch import causal_conv1d as triton_causal_conv1d

needs_interpreter = pytest.mark.skipif(
    not torch.cuda.is_available() and unavailable_reason() is not None, reason="needs Triton's interpreter or a GPU"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
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
    monkeypatch.setattr(causal_conv1d, "find_causal_conv1d", lambda backend, u, *, width: package)
    actual = block(x)
    gradients = torch.autograd.grad(actual.square().sum(), (x, *weights))
    torch.testing.assert_close((actual, *gradients), (expected, *expected_gradients))


def make(b, d, length, taps, *, dtype=torch.float32):
    """x (b, d, l) as a block has it, half of the channels of (b, l, 2d), weight (d, k) and bias (d)."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape, kind=torch.float32):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(DEVICE, kind).requires_grad_()

    return normal(b, length, 2 * d, kind=dtype)[..., d:].mT, normal(d, taps), normal(d)


def outputs_and_gradients(convolve, *leaves):
    y = convolve(*leaves)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    names = ("y", "x", "weight", "bias")
    return dict(zip(names, (y, *torch.autograd.grad(y, leaves, seed.to(y))), strict=True))


# One step, fewer steps than taps, several tiles, several blocks of channels.
@needs_interpreter
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 12, 1, 4), torch.float32),
        ((1, 5, 3, 8), torch.float32),
        ((2, 16, 130, 4), torch.float32),
        ((2, 70, 20, 2), torch.float32),
        ((1, 8, 9, 1), torch.float32),
        ((2, 12, 100, 3), torch.bfloat16),
    ],
)
def test_triton_equals_torchs_own(relative_error, tolerance, shape, dtype):
    leaves = make(*shape, dtype=dtype)
    expected = outputs_and_gradients(
        composed_causal_conv1d, *(leaf.detach().double().requires_grad_() for leaf in leaves)
    )
    actual = outputs_and_gradients(triton_causal_conv1d, *leaves)
    for name, tensor in actual.items():
        assert tensor.dtype == (torch.float32 if name in ("weight", "bias") else dtype)
        assert relative_error(tensor, expected[name]) < (2e-6 if dtype == torch.float32 else tolerance[dtype]), name


@needs_interpreter
def test_triton_is_known_to_torchs_compiler():
    leaves = [leaf.detach().requires_grad_() for leaf in make(2, 12, 9, 4)]
    compiled = torch.compile(causal_conv1d.causal_conv1d, backend="aot_eager", fullgraph=True)
    expected = outputs_and_gradients(triton_causal_conv1d, *leaves)
    for name, tensor in outputs_and_gradients(compiled, *leaves).items():
        torch.testing.assert_close(tensor, expected[name])


@needs_interpreter
@pytest.mark.parametrize(
    ("requested", "taps", "taken"), [("auto", 4, 1), ("triton", 8, 1), ("chunked", 4, 0), ("auto", 9, 0)]
)
def test_triton_is_taken_where_it_runs(monkeypatch, requested, taps, taken):
    calls = []

    def spy(*tensors):
        calls.append(tensors)
        return triton_causal_conv1d(*tensors)

    monkeypatch.setattr("mhsvm.ops.fused.causal_conv1d_launch.causal_conv1d", spy)
    leaves = make(1, 4, 12, taps)
    y = causal_conv1d.causal_conv1d(*leaves, backend=requested)
    assert len(calls) == taken
    torch.testing.assert_close(y, composed_causal_conv1d(*leaves))


def test_shapes_that_do_not_belong_together():
    message = r"x is \(b, d, l\), weight \(d, k\), bias \(d\); received \(1, 4, 9\), \(4, 1, 3\), \(4,\)"
    with pytest.raises(ValueError, match=message):
        causal_conv1d.causal_conv1d(torch.ones(1, 4, 9), torch.ones(4, 1, 3), torch.ones(4))
