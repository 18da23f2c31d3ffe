import pytest
import torch
import torch.nn.functional as F

from mhsvm.ops.fused.conv2d_silu import CONV2D_SILU, bias_silu, conv2d_silu, conv2d_silu_reference


@pytest.mark.interpreter
@pytest.mark.parametrize("frozen", ["x", "bias"])
def test_triton_gives_one_gradient_alone(relative_error, frozen, kernel_device):
    torch.manual_seed(0)
    leaves = {"x": torch.randn(2, 5, 6, 24).movedim(-1, 1), "bias": torch.randn(24)}
    other = next(name for name in leaves if name != frozen)
    leaves = {name: x.to(kernel_device).requires_grad_(name == other) for name, x in leaves.items()}
    (actual,) = torch.autograd.grad(bias_silu(**leaves).square().sum(), leaves[other])
    x, bias = leaves.values()
    (expected,) = torch.autograd.grad(F.silu(x + bias[:, None, None]).square().sum(), leaves[other])
    assert relative_error(actual, expected) < 1e-6


# numpy, in the interpreter, warns of the overflow of an exponential.
@pytest.mark.interpreter
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_triton_keeps_the_tails(kernel_device):
    """Where SiLU rounds to 0 or x, its derivative is 0 or 1; nothing finite becomes NaN."""
    x = torch.tensor([[-3e38, -200.0, 200.0, 3e38]], device=kernel_device).view(1, 4, 1, 1).requires_grad_()
    y = bias_silu(x, torch.zeros(4, device=kernel_device))
    y.sum().backward()
    assert y.flatten().tolist() == [0, 0, 200, x[0, 3].item()]
    assert x.grad.flatten().tolist() == [0, 0, 1, 1]


@pytest.mark.interpreter
def test_triton_takes_no_pixels(kernel_device):
    x = torch.ones(0, 8, 2, 2, device=kernel_device).requires_grad_()
    bias = torch.ones(8, device=kernel_device).requires_grad_()
    y = bias_silu(x, bias)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 8, 2, 2)
    assert (bias.grad == 0).all()


@pytest.mark.interpreter
def test_maps_in_another_order_are_left_to_torch_unless_asked_for(kernel_device):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(shape, device=kernel_device) for shape in ((2, 8, 5, 4), (8, 1, 3, 3), (8,)))
    assert CONV2D_SILU.choose("auto", x, weight, bias).backend == "reference"
    last = x.to(memory_format=torch.channels_last)
    assert CONV2D_SILU.choose("auto", last, weight, bias).backend == "triton"
    expected = conv2d_silu_reference(x, weight, bias)
    torch.testing.assert_close(conv2d_silu(x, weight, bias, backend="triton"), expected, rtol=1e-5, atol=1e-5)


def test_gradients_in_float64():
    torch.manual_seed(0)
    leaves = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in ((2, 3, 3, 2), (3, 1, 3, 3), (3,))]
    assert torch.autograd.gradcheck(conv2d_silu, leaves)


@pytest.mark.parametrize(
    ("x", "weight", "bias"),
    [
        ((2, 8, 4), (8, 1, 3, 3), (8,)),
        ((2, 8, 4, 4), (8, 1, 3, 3), (4,)),
        ((2, 8, 4, 4), (8, 1, 2, 2), (8,)),
        ((2, 8, 4, 4), (8, 2, 3, 3), (8,)),
    ],
)
def test_bad_input(x, weight, bias):
    message = r"weight \(c, 1, f, f\) with odd f, bias \(c\); received \(2, 8, 4.*\), \(8, "
    with pytest.raises(ValueError, match=message):
        conv2d_silu(torch.ones(x), torch.ones(weight), torch.ones(bias))
