import pytest
import torch
from torch import nn

from mhsvm.layers import LayerNorm


def test_stands_in_for_torchs_own():
    own, torchs = LayerNorm(24), nn.LayerNorm(24)
    assert repr(own) == repr(torchs)
    with torch.no_grad():
        for parameter in torchs.parameters():
            parameter.normal_()
    own.load_state_dict(torchs.state_dict())
    x = torch.randn(2, 3, 5, 24)
    assert torch.equal(own(x), torchs(x))


def test_the_gate_multiplies():
    norm, x, gate = LayerNorm(8), torch.randn(2, 8), torch.randn(2, 8)
    assert torch.equal(norm(x, gate=gate), norm(x) * nn.functional.silu(gate))
    with pytest.raises(ValueError, match=r"the gate is shaped like x, \(2, 8\); received \(2, 4\)"):
        norm(x, gate=gate[:, :4])
