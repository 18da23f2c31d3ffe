import pytest
import torch

from mhsvm.layers import MultiHeadScan, ScanRouteAttention
from mhsvm.layers.route_fusion import FUSIONS, RouteFusion
from mhsvm.ops import route_attention, route_statistics

KINDS = ("mean_max", "statistics")


def routes(dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(2, 3, 4, 7, 5, dtype=dtype)


@pytest.mark.parametrize("gate", ["relu", "sigmoid", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_as_the_sum(kind, gate):
    y = routes()
    attention = ScanRouteAttention(3, gate=gate, threshold=0.3, fusion=kind, channels=5, backend="reference").double()
    expected = route_attention(y, gate=gate, threshold=0.3, backend="reference")
    torch.testing.assert_close(attention(y), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_convolution_of_each_head_s_statistics(kind):
    y = routes()
    fusion = RouteFusion(3, 5, kind=kind).double()
    torch.nn.init.normal_(fusion.conv.weight)
    mean, highest, lowest = y.sum(2) / 4, y.max(2).values, y.min(2).values
    deviation = ((y - mean.unsqueeze(2)).square().sum(2) / 3).sqrt()
    found = {"mean_max": (mean, highest), "statistics": (mean, highest, lowest, deviation)}[kind]
    weights = fusion.conv.weight.reshape(3, 5, len(found), 5)  # head, output, statistic, input
    expected = sum(torch.einsum("bmld,mod->bmlo", x, weights[:, :, i]) for i, x in enumerate(found))
    torch.testing.assert_close(fusion(y), expected, rtol=1e-12, atol=1e-12)
    attention = ScanRouteAttention(3, gate="exp", threshold=0.5, fusion=kind, channels=5, backend="reference").double()
    attention.fusion = fusion
    _, variation = route_statistics(y, backend="reference")
    weighed = expected * torch.exp(variation - 0.5)
    torch.testing.assert_close(attention(y), weighed.transpose(1, 2).reshape(2, 7, 15), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_all_weights_learn_also_where_routes_are_equal(kind):
    torch.manual_seed(0)
    scan = MultiHeadScan(12, patterns=("C", "S"), fusion=kind, gate="sigmoid", gate_learnable=True, head_divisor=3)
    x = torch.randn(1, 12, 3, 4)
    scan(x).square().sum().backward()
    for name, parameter in scan.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    y = torch.ones(1, 2, 4, 3, 4, requires_grad=True)
    scan.attention(y).sum().backward()
    assert y.grad.isfinite().all()


def test_half_precision_has_the_type_that_is_asked_for():
    y = routes(torch.float32)
    attention = ScanRouteAttention(3, fusion="mean_max", channels=5)
    exact = attention(y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = attention(y, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert (half - exact).norm() / exact.norm() < 0.02


def test_bad_fusions_are_refused(registered):
    with pytest.raises(ValueError, match="unknown fusion 'median'; known: mean_max, statistics"):
        MultiHeadScan(8, fusion="median")
    with pytest.raises(ValueError, match="the fusion 'mean_max' needs the channels of a head; received channels=0"):
        ScanRouteAttention(2, fusion="mean_max")
    registered(FUSIONS, "median", lambda y: (y.median(dim=2).values,))
    assert MultiHeadScan(8, fusion="median").attention.fusion.conv.weight.shape == (8, 2, 1)
