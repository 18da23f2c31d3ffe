import torch
from torch import nn

from mhsvm.layers.linear import Linear


def test_it_is_torchs_layer():
    torch.manual_seed(0)
    layer, expected = Linear(6, 5), nn.Linear(6, 5)
    expected.load_state_dict(layer.state_dict())
    x = torch.randn(2, 64, 6)
    torch.testing.assert_close(layer(x), expected(x))
