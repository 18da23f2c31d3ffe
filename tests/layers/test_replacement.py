from functools import partial

import pytest
import torch
from torch import nn

import mhsvm
from mhsvm.layers import PVMLayer
from mhsvm.layers.replacement import replace_convs


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def two_convs(in_channels, out_channels):
    convs = (nn.Conv2d(i, out_channels, 3, padding=1) for i in (in_channels, out_channels))
    return nn.Sequential(*(part for conv in convs for part in (conv, nn.BatchNorm2d(out_channels), nn.ReLU())))


class PlainUNet(nn.Module):
    """A U-Net as it is usually written, with a 3 x 3 convolution after each doubling."""

    def __init__(self, widths):
        super().__init__()
        self.down = nn.ModuleList(two_convs(i, o) for i, o in zip((3, *widths[:-1]), widths, strict=True))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in pairs
        )
        self.merge = nn.ModuleList(two_convs(2 * o, o) for _, o in pairs)
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x):
        skips = []
        for stage in self.down[:-1]:
            skips.append(stage(x))
            x = nn.functional.max_pool2d(skips[-1], 2)
        x = self.down[-1](x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat((skips.pop(), up(x)), dim=1))
        return self.head(x)


def test_a_plain_u_net():
    """The paper reports -80.38 % for a U-Net that it does not describe."""
    network = PlainUNet((16, 32, 64, 128, 256))
    result = replace_convs(network, PVMLayer)
    assert (result.parameters_before, result.parameters_after) == (2_162_129, 421_550)
    assert num_parameters(network) == 421_550
    assert str(result).startswith("21 convolutions replaced: 2,162,129 parameters before, 421,550 after (-80.50%)\n")
    assert list(result.kept) == ["down.0.0"]
    assert "received in_channels=3, branches=4" in result.kept["down.0.0"]
    assert type(network.head) is nn.Conv2d
    last = result.replaced[-1]
    assert (last.name, last.parameters_before) == ("merge.3.3", 16 * 16 * 9 + 16)
    assert last.parameters_after == num_parameters(network.merge[3][3]) == num_parameters(PVMLayer(16, 16))


def test_the_network_still_runs_and_learns():
    torch.manual_seed(0)
    network = PlainUNet((4, 8, 12))
    result = mhsvm.replace_convs(network, partial(PVMLayer, branches=2, mixer="ss2d"))
    assert len(result.replaced) == 11
    y = network(torch.rand(2, 3, 16, 24))
    assert y.shape == (2, 1, 16, 24)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 5)])
@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (3, 3)])
def test_strides_are_kept_or_pooled(stride, size):
    def network():
        return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1, stride=stride))

    x = torch.rand(1, 4, *size)
    kept = network()
    expected = kept(x).shape
    result = replace_convs(kept, PVMLayer)
    assert type(kept[1]) is nn.Conv2d
    assert f"its stride is {stride[0]} x {stride[1]}, and a layer keeps the size" in result.kept["1"]
    assert kept(x).shape == expected
    pooled = network()
    assert not replace_convs(pooled, PVMLayer, pool_strided=True).kept
    assert pooled(x).shape == expected
    assert type(pooled[1][1]) is PVMLayer


def test_others_are_kept_with_their_reason():
    class Custom(nn.Conv2d):
        pass

    network = nn.ModuleDict(
        {
            "custom": Custom(4, 4, 3, padding=1),
            "smaller": nn.Conv2d(4, 4, 3),
            "observed": nn.Conv2d(4, 4, 3, padding=1),
            "wide": nn.Conv2d(4, 4, 5, padding=2),
            "one": nn.Conv2d(4, 4, 1),
            "up": nn.ConvTranspose2d(4, 4, 3, padding=1),
            "dilated": nn.Conv2d(4, 4, 3, padding=2, dilation=2),
            "same": nn.Conv2d(4, 8, 3, padding="same", bias=False),
        }
    )
    network["observed"].register_forward_hook(lambda *_: None)
    result = replace_convs(network, PVMLayer)
    assert [each.name for each in result.replaced] == ["dilated", "same"]
    assert {name: reason.split(",")[0] for name, reason in result.kept.items()} == {
        "custom": "it is of the class " + Custom.__qualname__,
        "smaller": "its padding (0",
        "observed": "it has hooks",
    }
    assert [each.name for each in replace_convs(network, PVMLayer, kernel_size=5).replaced] == ["wide"]


def test_layers_take_over_type_mode_and_place():
    shared = nn.Conv2d(4, 4, 3, padding=1).double().eval()
    network = nn.Sequential(shared, nn.ReLU(), shared)
    result = replace_convs(network, PVMLayer)
    assert [each.name for each in result.replaced] == ["0", "2"]
    assert network[0] is network[2]
    assert result.parameters_after == num_parameters(PVMLayer(4, 4))
    assert network[0].proj.weight.dtype == torch.float64
    assert not network[0].mixer.training
    assert network(torch.rand(1, 4, 2, 3, dtype=torch.float64)).shape == (1, 4, 2, 3)


def test_a_network_without_such_convolutions_is_an_error():
    with pytest.raises(ValueError, match=r"no convolution of 3 x 3 was replaced, 0 are kept \(none\)"):
        replace_convs(nn.Sequential(nn.Conv2d(4, 4, 1)), PVMLayer)
    with pytest.raises(ValueError, match=r"1 are kept \(0: the branches must divide in_channels"):
        replace_convs(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), PVMLayer)
    with pytest.raises(ValueError, match="the network is itself a convolution"):
        replace_convs(nn.Conv2d(4, 4, 3, padding=1), PVMLayer)
    with pytest.raises(ValueError, match="kernel_size is odd: such filters can keep the size of a map; received 2"):
        replace_convs(nn.Sequential(nn.Conv2d(4, 4, 2)), PVMLayer, kernel_size=2)
