import copy

import pytest
import torch
from torch import nn

from mhsvm.layers import GatedScan
from mhsvm.ops import dispatch


def make(inner, *, out_proj, device="cpu"):
    torch.manual_seed(0)
    return GatedScan(16, scan=nn.Tanh(), inner_channels=inner, out_proj=out_proj).to(device)


def outputs_and_gradients(branch):
    x = torch.randn(2, 5, 7, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x.to(branch.conv.weight).requires_grad_()
    y = branch(x)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    leaves = {"x": x} | dict(branch.named_parameters())
    return {"y": y} | dict(zip(leaves, torch.autograd.grad(y, tuple(leaves.values()), seed.to(y)), strict=True))


@pytest.mark.interpreter
@pytest.mark.parametrize(("inner", "out_proj"), [(16, False), (40, True)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_triton_equals_torchs_own(monkeypatch, kernel_device, inner, out_proj, precision):
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    monkeypatch.setattr(dispatch, "_reported", set())
    branch = make(inner, out_proj=out_proj, device=kernel_device)
    expected = outputs_and_gradients(copy.deepcopy(branch).double())
    with torch.autocast(kernel_device.type, dtype=precision, enabled=precision != torch.float32):
        actual = outputs_and_gradients(branch)
    assert ("conv2d_silu", "triton", kernel_device.type) in dispatch._reported
    for name, tensor in actual.items():
        error = (tensor.double() - expected[name]).norm() / expected[name].norm()
        assert error < (1e-5 if precision == torch.float32 else 2e-2), name


def test_the_reference_computes_the_convolution_and_the_gate():
    branch = make(16, out_proj=False)
    x = torch.randn(2, 5, 7, 16, generator=torch.Generator().manual_seed(0))
    a, q = branch.in_proj(x).chunk(2, dim=-1)
    a = nn.functional.silu(branch.conv(a.permute(0, 3, 1, 2)))
    expected = nn.functional.layer_norm(a.tanh().permute(0, 2, 3, 1), (16,)) * nn.functional.silu(q)
    branch.norm.backend = branch.backend = "reference"
    torch.testing.assert_close(branch(x), expected)
    assert {"conv.weight", "conv.bias"} < branch.state_dict().keys()
