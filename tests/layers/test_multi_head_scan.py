import pytest
import torch
from torch import nn

from mhsvm.layers import MultiHeadScan


@pytest.mark.parametrize("patterns", [("C",), ("C", "X", "S"), ("Z", "Z", "C", "Z")])
@pytest.mark.parametrize("gate", ["relu", "sigmoid", "power", "exp", "none"])
def test_any_patterns_and_gate_train(patterns, gate):
    torch.manual_seed(0)
    scan = MultiHeadScan(12, patterns=patterns, gate=gate, gate_threshold=0.1, gate_learnable=gate in ("relu", "exp"))
    y = scan(torch.randn(2, 12, 3, 5))
    assert y.shape == (2, 12, 3, 5)
    y.square().sum().backward()
    for name, parameter in scan.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_heads_that_do_not_divide_the_channels_need_the_projection():
    scan = MultiHeadScan(10, patterns=("C", "X", "S"))
    assert scan.in_proj.out_features == 9
    assert scan(torch.randn(1, 10, 2, 2)).shape == (1, 10, 2, 2)
    message = "received 3 patterns for 10 channels. Use project=True or 9 channels"
    with pytest.raises(ValueError, match=message):
        MultiHeadScan(10, patterns=("C", "X", "S"), project=False)


def test_heads_are_independent_slices_without_the_projection():
    torch.manual_seed(0)
    scan = MultiHeadScan(6, patterns=("C", "X"), project=False)
    with torch.no_grad():
        scan.in_proj.weight.copy_(torch.eye(6))
    x = torch.randn(1, 6, 4, 4)
    changed = x.clone()
    changed[:, 3:] += 1
    difference = (scan(changed) - scan(x)).abs().amax(dim=(0, 2, 3))
    assert difference[:3].max() == 0
    assert difference[3:].min() > 0


def test_memory_format_does_not_matter():
    torch.manual_seed(0)
    scan = MultiHeadScan(8)
    x = torch.randn(2, 8, 4, 6)
    torch.testing.assert_close(scan(x.contiguous(memory_format=torch.channels_last)), scan(x))


def test_output_has_the_type_of_the_projections_under_autocast():
    torch.manual_seed(0)
    scan = MultiHeadScan(8, project=False)
    x = torch.randn(1, 8, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = scan(x)
    assert y.dtype == torch.bfloat16
    assert (y - scan(x)).norm() / scan(x).norm() < 0.05


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="received 4 patterns for 3 channels. Name at most 3 patterns"):
        MultiHeadScan(3)
    with pytest.raises(ValueError, match="at least one; received \\(\\)"):
        MultiHeadScan(3, patterns=())
    with pytest.raises(ValueError, match=r"a map is \(b, 8, h, w\); received \(2, 4, 8\)"):
        MultiHeadScan(8)(torch.randn(2, 4, 8))
    with pytest.raises(ValueError, match=r"a map is \(b, 8, h, w\); received \(1, 4, 4, 8\)"):
        MultiHeadScan(8)(torch.randn(1, 4, 4, 8))


@pytest.mark.parametrize("patterns", [("C", "X", "S", "Z"), ("C",)])
def test_bfloat16_closes_as_many_cells_as_float32(patterns):
    torch.manual_seed(0)
    scan = MultiHeadScan(32, patterns=patterns, gate_threshold=1.0)
    # delta is so small that the routes differ by about a thousandth.
    nn.init.constant_(scan.s6.dt_bias, -10.0)
    x = torch.randn(2, 32, 12, 12)
    outputs = []
    scan.s6.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        scan(x)
        with torch.autocast("cpu", torch.bfloat16):
            scan(x)

    def closed(y):
        return (scan.attention(y) == 0).float().mean().item()

    exact, half = outputs
    spread = (exact.amax(2) - exact.amin(2)) / exact.abs().amax(2)
    assert 2e-4 < spread.median() < 5e-3
    assert 0.3 < closed(exact) < 0.9
    assert closed(half) == pytest.approx(closed(exact), abs=0.005)
    # Rounded to 16 bits they would be equal.
    assert closed(half.bfloat16().float()) != pytest.approx(closed(exact), abs=0.005)


@pytest.mark.parametrize(("divisor", "width"), [(3, 8), (4, 6), (8, 3), (24, 1), (1, 24), (0, 12), (5, 4)])
def test_the_width_of_a_head_can_be_free_of_their_number(divisor, width):
    torch.manual_seed(0)
    scan = MultiHeadScan(24, patterns=("C", "X"), head_divisor=divisor)
    assert scan.in_proj.out_features == scan.norm.weight.numel() == scan.out_proj.in_features == 2 * width
    assert scan.s6.D.shape == (2, 4, width)
    x = torch.randn(1, 24, 3, 4)
    z = scan.attention(scan.s6(scan.in_proj(x.permute(0, 2, 3, 1)))).reshape(1, 3, 4, 2 * width)
    torch.testing.assert_close(scan(x), scan.out_proj(scan.norm(z)).permute(0, 3, 1, 2))


def test_widths_of_heads_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match=r"as the map, 24; received 2 heads of 24 // 3 = 8. Use project=True, or head_"
    ):
        MultiHeadScan(24, patterns=("C", "X"), head_divisor=3, project=False)
    assert MultiHeadScan(24, patterns=("C", "X"), head_divisor=2, project=False)(torch.ones(1, 24, 2, 2)).shape[1] == 24
    for divisor in (-1, 25):
        with pytest.raises(ValueError, match=f"1 to the number of channels, 24; received {divisor}"):
            MultiHeadScan(24, head_divisor=divisor)
