import copy

import pytest
import torch
from torch import nn

from mhsvm.layers import GatedScan
from mhsvm.ops.availability import unavailable_reason
from mhsvm.ops.fused.bias_silu_launch import bias_silu as triton_bias_silu

needs_interpreter = pytest.mark.skipif(
    not torch.cuda.is_available() and unavailable_reason() is not None, reason="needs Triton's interpreter or a GPU"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make(inner, *, out_proj):
    torch.manual_seed(0)
    return GatedScan(16, scan=nn.Tanh(), inner_channels=inner, out_proj=out_proj).to(DEVICE)


def outputs_and_gradients(branch):
    x = torch.randn(2, 5, 7, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x.to(DEVICE, branch.conv.weight.dtype).requires_grad_()
    y = branch(x)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    leaves = {"x": x} | dict(branch.named_parameters())
    return {"y": y} | dict(zip(leaves, torch.autograd.grad(y, tuple(leaves.values()), seed.to(y)), strict=True))


@needs_interpreter
@pytest.mark.parametrize(("inner", "out_proj"), [(16, False), (40, True)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_triton_equals_torchs_own(monkeypatch, inner, out_proj, precision):
    calls = []

    def spy(x, bias):
        calls.append((x.dtype, bias.dtype))
        return triton_bias_silu(x, bias)

    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    monkeypatch.setattr("mhsvm.ops.fused.bias_silu_launch.bias_silu", spy)
    branch = make(inner, out_proj=out_proj)
    expected = outputs_and_gradients(copy.deepcopy(branch).double())
    assert not calls
    with torch.autocast(DEVICE, dtype=precision, enabled=precision != torch.float32):
        actual = outputs_and_gradients(branch)
    assert calls == [(precision, torch.float32)]
    for name, tensor in actual.items():
        error = (tensor.double() - expected[name]).norm() / expected[name].norm()
        assert error < (1e-5 if precision == torch.float32 else 2e-2), name


def test_torchs_own_is_the_module_of_the_convolution(monkeypatch):
    monkeypatch.setenv("MHSVM_BACKEND", "reference")
    branch, seen = make(16, out_proj=False), []
    branch.conv.register_forward_hook(lambda module, arguments, y: seen.append(y.shape))
    branch(torch.randn(2, 5, 7, 16, device=DEVICE))
    assert seen == [(2, 16, 5, 7)]
    assert {"conv.weight", "conv.bias"} < branch.state_dict().keys()
