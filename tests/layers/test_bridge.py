import pytest
import torch
import torch.nn.functional as F

from mhsvm.layers import SkipBridge


@pytest.mark.parametrize("split_att", ["fc", "conv"])
def test_bridge_follows_its_formula(split_att):
    torch.manual_seed(0)
    bridge = SkipBridge((4, 6), split_att=split_att)
    skips = [torch.randn(2, 4, 8, 6), torch.randn(2, 6, 4, 3)]
    attended, summed = [], []
    for skip in skips:
        statistics = torch.stack([skip.mean(dim=1), skip.max(dim=1).values], dim=1)
        gate = torch.sigmoid(F.conv2d(statistics, bridge.spatial.weight, bridge.spatial.bias, padding=9, dilation=3))
        attended.append(gate * skip)
        summed.append(gate * skip + skip)
    averages = torch.cat([t.mean(dim=(2, 3)) for t in summed], dim=1)
    left, middle, right = bridge.mix.weight.flatten()
    mixed = middle * averages
    mixed[:, 1:] += left * averages[:, :-1]
    mixed[:, :-1] += right * averages[:, 1:]
    outputs = bridge(skips)
    assert [tuple(out.shape) for out in outputs] == [tuple(skip.shape) for skip in skips]
    for out, layer, t, a in zip(outputs, bridge.gates, summed, attended, strict=True):
        weight = layer.weight.flatten(1)
        gate = torch.sigmoid(mixed @ weight.T + layer.bias)
        torch.testing.assert_close(out, gate[..., None, None] * t + a, rtol=1e-4, atol=1e-5)


def test_split_att_decides_the_shape_of_the_weights():
    assert SkipBridge((4, 6), split_att="fc").gates[1].weight.shape == (6, 10)
    assert SkipBridge((4, 6), split_att="conv").gates[1].weight.shape == (6, 10, 1)
    with pytest.raises(ValueError, match="split_att is one of fc, conv; received 'mlp'"):
        SkipBridge((4, 6), split_att="mlp")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
# torch's compiler reads the gradient of each input; pytest does not see how it silences the warning
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_in_16_bits_its_gradients_are_those_of_eager_steps():
    """A compiler keeps values in 32 bits that memory has in 16, so a value and its copy may differ."""
    torch.manual_seed(0)
    bridge = SkipBridge((4,))
    layer, image = torch.nn.Conv2d(3, 4, 1), torch.randn(2, 3, 8, 8)

    def pass_through(image):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return bridge([F.gelu(layer(image))])[0]

    gradients = []
    for function in (pass_through, torch.compile(pass_through, dynamic=False)):
        layer.zero_grad()
        function(image).float().square().sum().backward()
        gradients.append(layer.weight.grad)
    assert (gradients[0] - gradients[1]).norm() < 2e-2 * gradients[0].norm()
