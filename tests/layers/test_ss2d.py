import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mhsvm.layers import SS2D, GatedScan


def test_the_four_routes_are_summed():
    torch.manual_seed(0)
    layer = SS2D(6, dt_rank=2)
    assert layer.s6.dt_proj.shape == (1, 4, 6, 2)
    x = torch.randn(2, 6, 3, 4)
    routes = layer.s6(x.permute(0, 2, 3, 1))  # (b, 1, k, l, d)
    expected = (routes[:, 0, 0] + routes[:, 0, 1] + routes[:, 0, 2] + routes[:, 0, 3]).mT.reshape(x.shape)
    torch.testing.assert_close(layer(x), expected)


def test_a_cell_reaches_all_others():
    torch.manual_seed(0)
    layer = SS2D(4)
    x = torch.randn(1, 4, 3, 3, requires_grad=True)
    layer(x)[0, :, 1, 1].sum().backward()
    assert (x.grad.abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize(("inner", "out_proj"), [(4, False), (8, True)])
def test_gated_scan(inner, out_proj):
    torch.manual_seed(0)
    branch = GatedScan(4, scan=nn.Identity(), inner_channels=inner, out_proj=out_proj)
    x = torch.randn(2, 3, 5, 4)
    a, q = branch.in_proj(x).split(inner, dim=-1)
    a = F.silu(branch.conv(a.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    expected = F.layer_norm(a, (inner,)) * q * torch.sigmoid(q)
    torch.testing.assert_close(branch(x), branch.out_proj(expected) if out_proj else expected)
    assert branch(x).shape == x.shape


def test_gated_scan_without_its_silu_branch():
    torch.manual_seed(0)
    branch = GatedScan(4, scan=nn.Tanh(), inner_channels=4, out_proj=False, silu_branch=False)
    assert branch.in_proj.weight.shape == (4, 4)
    x = torch.randn(2, 3, 5, 4)
    a = F.silu(branch.conv(branch.in_proj(x).permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    torch.testing.assert_close(branch(x), F.layer_norm(a.tanh(), (4,)))
