import pytest
import torch

from mhsvm.layers import ScanRouteAttention
from mhsvm.ops import route_statistics

ROUTES_2_4_6_8 = torch.tensor([2.0, 4.0, 6.0, 8.0]).reshape(1, 1, 4, 1, 1)
# deviation sqrt(20/3), mean above the minimum 3
VARIATION = (20 / 3) ** 0.5 / (3 + 1e-5)


@pytest.mark.parametrize(
    ("gate", "threshold", "weight"),
    [
        ("relu", None, VARIATION - 0.5),
        ("relu", 0.25, VARIATION - 0.25),
        ("relu", 2.0, 0.0),
        ("sigmoid", None, 1 / (1 + torch.tensor(-VARIATION).exp().item())),
        ("sigmoid", 0.5, 1 / (1 + torch.tensor(0.5 - VARIATION).exp().item())),
        ("power", None, VARIATION**2),
        ("exp", None, torch.tensor(VARIATION).exp().item()),
        ("exp", 0.5, torch.tensor(VARIATION - 0.5).exp().item()),
        ("none", None, 1.0),
    ],
)
def test_gate_weighs_the_sum_of_the_routes(gate, threshold, weight):
    z = ScanRouteAttention(1, gate=gate, threshold=threshold)(ROUTES_2_4_6_8)
    assert z.shape == (1, 1, 1)
    assert z.item() == pytest.approx(20 * weight, rel=1e-5)


def test_power_takes_its_exponent():
    z = ScanRouteAttention(1, gate="power", power=3.0)(ROUTES_2_4_6_8)
    assert z.item() == pytest.approx(20 * VARIATION**3, rel=1e-5)


def test_learnable_threshold_is_one_scalar_a_head():
    attention = ScanRouteAttention(3, gate="relu", threshold=0.25, learnable=True)
    assert attention.threshold.numel() == 3
    y = ROUTES_2_4_6_8.expand(2, 3, 4, 5, 2)
    fixed = ScanRouteAttention(3, gate="relu", threshold=0.25)
    torch.testing.assert_close(attention(y), fixed(y))
    attention(y)[:, :, 2:4].sum().backward()
    # 2 samples, 5 cells and 2 channels of head 1, each -sum of the routes
    torch.testing.assert_close(attention.threshold.grad.flatten(), torch.tensor([0.0, -400.0, 0.0]))


def test_variation_sees_small_differences_and_ignores_a_common_offset():
    generator = torch.Generator().manual_seed(0)
    y = 1 + 1e-3 * torch.rand(2, 1, 4, 6, 3, generator=generator, dtype=torch.float64)
    _, variation = route_statistics(y.float())
    _, expected = route_statistics(y - 1)
    assert variation.min() > 0.1
    torch.testing.assert_close(variation.double(), expected, rtol=5e-3, atol=0)


@pytest.mark.parametrize("gate", ["relu", "sigmoid", "power", "exp", "none"])
def test_gradient_where_all_routes_are_equal_is_finite(gate):
    y = torch.full((1, 2, 4, 3, 2), 1.5, requires_grad=True)
    ScanRouteAttention(2, gate=gate, learnable=gate == "relu")(y).sum().backward()
    weight = {"relu": 0.0, "sigmoid": 0.5, "power": 0.0, "exp": 1.0, "none": 1.0}[gate]
    torch.testing.assert_close(y.grad, torch.full_like(y, weight))


@pytest.mark.parametrize("gate", ["relu", "sigmoid", "power", "exp", "none"])
def test_gradient_flows_through_deviation_mean_and_minimum(gate):
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(1, 2, 4, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ScanRouteAttention(2, gate=gate, threshold=0.1), y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gate": "tanh"}, "unknown gate 'tanh'; known: relu, sigmoid, power, exp, none"),
        ({"gate": "power", "learnable": True}, "gate 'power' has no threshold to learn; use one of relu, sigmoid, exp"),
        ({"gate": "none", "learnable": True}, "gate 'none' has no threshold to learn"),
        ({"gate": "power", "power": 0.5}, "the power of a gate is at least 1; received 0.5"),
    ],
)
def test_bad_gates_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScanRouteAttention(2, **arguments)
