import pytest
import torch
import torch.nn.functional as F

from mhsvm.ops.availability import unavailable_reason
from mhsvm.ops.fused.bias_silu import bias_silu, composed_bias_silu
from mhsvm.ops.fused.bias_silu_launch import bias_silu as triton_bias_silu

# Triton's interpreter, or a GPU's Triton on the tensors of a CPU, which it refuses.
needs_interpreter = pytest.mark.skipif(
    not torch.cuda.is_available() and unavailable_reason() is not None, reason="needs Triton's interpreter or a GPU"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make(*shape, dtype=torch.float32, device="cpu"):
    """A map, channels last, and a bias on leaves; some of SiLU's inputs lie far from 0."""
    generator = torch.Generator().manual_seed(shape[1])
    x = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    x.view(-1)[::7] *= 5
    bias = torch.randn(shape[1], generator=generator, dtype=torch.float64)
    x = x.to(device, dtype, memory_format=torch.channels_last)
    return x.requires_grad_(), bias.to(device, torch.promote_types(dtype, torch.float32)).requires_grad_()


def outputs_and_gradients(op, *leaves, scattered=False):
    """y and the gradients; that of y lies in memory as y does, or otherwise."""
    y = op(*leaves)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(y)
    seed = seed if scattered else seed.to(memory_format=torch.channels_last)
    wanted = {name: leaf for name, leaf in zip(("x", "bias"), leaves, strict=True) if leaf.requires_grad}
    return {"y": y} | dict(zip(wanted, torch.autograd.grad(y, tuple(wanted.values()), seed), strict=True))


def exact(leaves):
    return [leaf.detach().double().requires_grad_(leaf.requires_grad) for leaf in leaves]


# One channel, one pixel, tiles and blocks of channels that are full or not, one and several tiles a program.
@needs_interpreter
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 1, 5, 3), (3, 3, 9, 7), (1, 1536, 1, 3), (2, 192, 8, 8), (2, 33, 7, 11)]
)
def test_triton_equals_torchs_own(monkeypatch, relative_error, tolerance, shape, dtype):
    monkeypatch.setattr("mhsvm.ops.fused.bias_silu_launch._PIXELS", 16)
    monkeypatch.setattr("mhsvm.ops.fused.bias_silu_launch._MAX_PROGRAMS", 6)
    leaves = make(*shape, dtype=dtype, device=DEVICE)
    expected = outputs_and_gradients(composed_bias_silu, *exact(leaves))
    for name, tensor in outputs_and_gradients(triton_bias_silu, *leaves).items():
        assert tensor.dtype == (torch.float32 if name == "bias" else dtype)
        assert relative_error(tensor, expected[name]) < (1e-6 if dtype == torch.float32 else tolerance[dtype]), name
        if name != "bias":
            assert tensor.permute(0, 2, 3, 1).is_contiguous()


@needs_interpreter
def test_triton_takes_gradients_in_any_layout(relative_error):
    x, bias = make(2, 24, 5, 6, device=DEVICE)
    bias = torch.stack([bias.detach(), bias.detach() + 1], dim=1)[:, 1].requires_grad_()
    assert not bias.is_contiguous()
    expected = outputs_and_gradients(composed_bias_silu, *exact((x, bias)))
    for name, tensor in outputs_and_gradients(triton_bias_silu, x, bias, scattered=True).items():
        assert relative_error(tensor, expected[name]) < 1e-6, name


@needs_interpreter
@pytest.mark.parametrize("frozen", ["x", "bias"])
def test_triton_gives_one_gradient_alone(relative_error, frozen):
    x, bias = make(2, 24, 5, 6, device=DEVICE)
    {"x": x, "bias": bias}[frozen].requires_grad_(False)
    expected = outputs_and_gradients(composed_bias_silu, *exact((x, bias)))
    actual = outputs_and_gradients(triton_bias_silu, x, bias)
    assert frozen not in actual
    for name, tensor in actual.items():
        assert relative_error(tensor, expected[name]) < 1e-6, name


@needs_interpreter
def test_triton_repeats_bit_for_bit():
    leaves = make(2, 48, 9, 15, device=DEVICE)
    first, second = (outputs_and_gradients(triton_bias_silu, *leaves) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in ("y", "x", "bias"))


# The interpreter's numpy warns of the exponential that overflows.
@needs_interpreter
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_triton_keeps_the_tails():
    """Where SiLU is 0 or x to the last digit, its slope is 0 or 1; nothing finite becomes NaN."""
    x = torch.tensor([[-3e38, -200.0, 200.0, 3e38]], device=DEVICE).view(1, 4, 1, 1).requires_grad_()
    y = triton_bias_silu(x, torch.zeros(4, device=DEVICE))
    y.sum().backward()
    assert y.flatten().tolist() == [0, 0, 200, x[0, 3].item()]
    assert x.grad.flatten().tolist() == [0, 0, 1, 1]


@needs_interpreter
def test_triton_takes_no_pixels():
    x, bias = make(1, 8, 2, 2, device=DEVICE)
    x = x.detach()[:0].requires_grad_()
    y = triton_bias_silu(x, bias)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 8, 2, 2)
    assert (bias.grad == 0).all()


@needs_interpreter
def test_triton_has_no_second_derivative():
    x, bias = make(1, 8, 2, 2, device=DEVICE)
    (gradient,) = torch.autograd.grad(triton_bias_silu(x, bias).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@needs_interpreter
def test_triton_is_taken_where_it_runs(monkeypatch):
    calls = []

    def spy(x, bias):
        calls.append((x.dtype, bias.dtype))
        return triton_bias_silu(x, bias)

    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    monkeypatch.setattr("mhsvm.ops.fused.bias_silu_launch.bias_silu", spy)
    x, bias = make(2, 8, 4, 4, device=DEVICE)
    bias_silu(x, bias)
    bias_silu(x.bfloat16(), bias)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert bias_silu(x.bfloat16(), bias).dtype == torch.bfloat16
    # Pixels side by side, a part of the channels, float64.
    for other in (x.contiguous(), torch.cat([x, x], dim=1)[:, ::2], x.double()):
        torch.testing.assert_close(bias_silu(other, bias), F.silu(other + bias.to(other.dtype)[:, None, None]))
    monkeypatch.setenv("MHSVM_BACKEND", "reference")
    bias_silu(x, bias)
    assert calls == [(torch.float32, torch.float32), *[(torch.bfloat16, torch.float32)] * 2]


def test_a_case_by_hand():
    x = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64).view(1, 2, 1, 2)
    y = bias_silu(x, torch.tensor([2.0, -0.5]).double())
    z = torch.tensor([3.0, 0.0, 0.0, 2.5], dtype=torch.float64).view(1, 2, 1, 2)
    torch.testing.assert_close(y, z / (1 + torch.exp(-z)))


def test_gradients_in_float64():
    assert torch.autograd.gradcheck(bias_silu, make(2, 3, 2, 2, dtype=torch.float64))


def test_torch_compile_joins_torchs_operations(monkeypatch):
    def refuse(x, bias):
        pytest.fail("the kernel was called")

    monkeypatch.setattr("mhsvm.ops.fused.bias_silu_launch.bias_silu", refuse)
    monkeypatch.setattr("mhsvm.ops.availability.unavailable_reason", lambda: None)
    monkeypatch.setattr("mhsvm.ops.availability.unsupported_tensor_reason", lambda x: None)
    x, bias = make(2, 8, 4, 4)
    compiled = torch.compile(bias_silu, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, bias), F.silu(x + bias[:, None, None]))


@pytest.mark.parametrize(("x", "bias"), [((2, 8, 4), (8,)), ((2, 8, 4, 4), (4,)), ((2, 8, 4, 4), (8, 1))])
def test_bad_input(x, bias):
    with pytest.raises(ValueError, match=r"x is \(b, c, h, w\) and bias \(c\); received \(2, 8, 4.*\) and \("):
        bias_silu(torch.ones(x), torch.ones(bias))
