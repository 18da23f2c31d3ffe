from functools import partial

import pytest
import torch
from torch import nn

from mhsvm.layers import Mamba, PVMLayer


@pytest.mark.parametrize("branches", [1, 2, 4])
def test_the_shared_mixer_takes_each_slice_of_the_channels(branches):
    torch.manual_seed(0)
    layer = PVMLayer(8, 6, branches=branches)
    with torch.no_grad():
        layer.skip_scale.fill_(0.7)
    x = torch.randn(3, 8, 2, 5)
    tokens = layer.norm(x.flatten(2).mT)
    parts = [layer.mixer(part) + 0.7 * part for part in tokens.chunk(branches, dim=-1)]
    expected = layer.proj(layer.norm(torch.cat(parts, dim=-1))).mT.reshape(3, 6, 2, 5)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("spatial", [(7,), (3, 4), (2, 3, 4)])
def test_any_number_of_spatial_axes(spatial):
    torch.manual_seed(0)
    layer = PVMLayer(8, 4)
    x = torch.randn(2, 8, *spatial)
    y = layer(x)
    assert y.shape == (2, 4, *spatial)
    torch.testing.assert_close(y.flatten(2), layer(x.flatten(2)))


def test_the_branches_are_one_batch():
    calls = []

    class Spy(nn.Module):
        def forward(self, x):
            calls.append(tuple(x.shape))
            return x

    PVMLayer(8, 8, branches=4, mixer=lambda width: Spy())(torch.randn(3, 8, 2, 5))
    assert calls == [(12, 10, 2)]


def test_any_mixer():
    torch.manual_seed(0)
    widths = []

    def attention(width):
        widths.append(width)
        return nn.TransformerEncoderLayer(width, nhead=2, dim_feedforward=8, batch_first=True)

    layer = PVMLayer(16, 4, branches=4, mixer=attention)
    assert widths == [4]
    assert layer(torch.randn(2, 16, 3, 3)).shape == (2, 4, 3, 3)
    small = PVMLayer(16, 4, branches=2, mixer=partial(Mamba, d_state=2, expand=1))
    assert small.mixer.A_log.shape == (8, 2)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="received in_channels=10, branches=4. Use a divisor of 10"):
        PVMLayer(10, 8)
    with pytest.raises(ValueError, match="in_channels=8, branches=0"):
        PVMLayer(8, 8, branches=0)
    with pytest.raises(ValueError, match=r"the input is \(b, 8, \*spatial\); received \(2, 4, 3\)"):
        PVMLayer(8, 8)(torch.randn(2, 4, 3))
    with pytest.raises(ValueError, match=r"received \(2, 8\)"):
        PVMLayer(8, 8)(torch.randn(2, 8))
