import pytest
import torch
import torch.nn.functional as F

from mhsvm.ops.fused import linear as module
from mhsvm.ops.fused.linear import batched_linear as linear


@pytest.fixture
def fused(monkeypatch):
    """Count the batches of small products."""
    calls, original = [], torch.baddbmm

    def spy(*args):
        calls.append(tuple(args[1].shape))
        return original(*args)

    # the gradients of the weights of 3 products
    monkeypatch.setattr(module, "_MOST_NUMBERS", 3 * 120)
    monkeypatch.setattr(torch, "baddbmm", spy)
    return calls


def outputs_and_gradients(function, leaves):
    y = function(*leaves)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype)
    return y, *torch.autograd.grad(y, leaves, seed)


def leaf(*shape):
    return torch.randn(shape, requires_grad=True)


@pytest.mark.parametrize(
    ("shape", "products"),
    [((2, 64, 6), 2), ((128, 6), 2), ((3, 32, 2, 6), 3), ((2, 63, 6), None), ((0, 64, 6), 0), ((256, 6), None)],
)
def test_it_is_torchs_linear(fused, shape, products):
    torch.manual_seed(0)
    leaves = [leaf(*shape), leaf(20, 6), leaf(20)]
    torch.testing.assert_close(outputs_and_gradients(linear, leaves), outputs_and_gradients(F.linear, leaves))
    assert fused == ([] if products is None else [(products, 64, 6)])


def test_any_layout(fused):
    torch.manual_seed(0)
    x = torch.randn(6, 64, 2).permute(2, 1, 0).requires_grad_()
    leaves = [x, leaf(5, 6), leaf(5)]
    torch.testing.assert_close(outputs_and_gradients(linear, leaves), outputs_and_gradients(F.linear, leaves))
    assert fused == [(2, 64, 6)]


@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.bfloat16, False), (torch.float64, False), (torch.float32, True)]
)
def test_other_types_are_left_to_torch(fused, dtype, autocast):
    leaves = [torch.randn(*s).to(dtype) for s in ((2, 64, 6), (5, 6), (5,))]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        assert torch.equal(linear(*leaves), F.linear(*leaves))
    assert not fused


def test_elsewhere_it_is_torchs_own(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch, "baddbmm", None)
    leaves = [torch.randn(*s) for s in ((2, 64, 6), (5, 6), (5,))]
    assert torch.equal(module.linear(*leaves), F.linear(*leaves))
