import pytest
import torch
import torch.nn.functional as F

from mhsvm.ops.availability import unavailable_reason
from mhsvm.ops.fused.layer_norm import composed_layer_norm, layer_norm
from mhsvm.ops.fused.layer_norm_launch import layer_norm as triton_layer_norm

# Triton's interpreter, or a GPU's Triton on the tensors of a CPU, which it refuses.
needs_interpreter = pytest.mark.skipif(
    not torch.cuda.is_available() and unavailable_reason() is not None, reason="needs Triton's interpreter or a GPU"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make(*shape, gated=False, dtype=torch.float32, device="cpu"):
    """x, weight, bias and gate on leaves; some rows lie far from 0, some are all equal."""
    generator = torch.Generator().manual_seed(shape[-1])
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    x.view(-1, shape[-1])[1::3] = 3.5
    x.view(-1, shape[-1])[-1] += 20
    weight, bias = (torch.randn(shape[-1], generator=generator, dtype=torch.float64) for _ in range(2))
    gate = torch.randn(*shape, generator=generator, dtype=torch.float64) * 3 if gated else None
    return [
        None if t is None else t.to(device, d).requires_grad_()
        for t, d in ((x, dtype), (weight, torch.float32), (bias, torch.float32), (gate, dtype))
    ]


def outputs_and_gradients(norm, x, weight, bias, gate):
    y = norm(x, weight, bias, gate)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    leaves = {"x": x, "weight": weight, "bias": bias, "gate": gate}
    leaves = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    gradients = torch.autograd.grad(y, tuple(leaves.values()), seed.to(y))
    return {"y": y} | dict(zip(leaves, gradients, strict=True))


def fused(x, weight, bias, gate, dtype=None):
    return triton_layer_norm(x, weight, bias, gate, epsilon=1e-5, dtype=dtype or x.dtype)


def composed(x, weight, bias, gate):
    return composed_layer_norm(x, weight, bias, gate=gate)


# One row, fewer rows than a tile has, more than one, more than one a program; every padding of the channels.
@needs_interpreter
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 8), torch.float32),
        ((2, 5, 24), torch.float32),
        ((3, 70, 33), torch.float32),
        ((2, 1536), torch.float32),
        ((2, 3, 4, 96), torch.bfloat16),
        ((3, 192), torch.float16),
    ],
)
def test_triton_equals_torchs_own(monkeypatch, relative_error, tolerance, shape, dtype, gated):
    monkeypatch.setattr("mhsvm.ops.fused.layer_norm_launch._MAX_PROGRAMS", 2)
    leaves = make(*shape, gated=gated, dtype=dtype, device=DEVICE)
    exact = [None if leaf is None else leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = outputs_and_gradients(composed, *exact)
    actual = outputs_and_gradients(fused, *leaves)
    for name, tensor in actual.items():
        assert tensor.dtype == (torch.float32 if name in ("weight", "bias") else dtype)
        assert relative_error(tensor, expected[name]) < (1e-5 if dtype == torch.float32 else tolerance[dtype]), name


@needs_interpreter
def test_triton_takes_any_layout(relative_error):
    x, weight, bias, gate = make(2, 24, 6, gated=True, device=DEVICE)
    weight, bias = (torch.randn(24, device=DEVICE, requires_grad=True) for _ in range(2))
    leaves = x.detach().mT.requires_grad_(), weight, bias, gate.detach().mT.requires_grad_()
    assert not leaves[0].is_contiguous()
    expected = outputs_and_gradients(composed, *leaves)
    for name, tensor in outputs_and_gradients(fused, *leaves).items():
        assert relative_error(tensor, expected[name]) < 1e-5, name


@needs_interpreter
def test_triton_gives_the_type_that_is_asked_for():
    leaves = make(5, 24, dtype=torch.bfloat16, device=DEVICE)
    wide, narrow = fused(*leaves, dtype=torch.float32), fused(*leaves)
    assert wide.dtype == torch.float32
    # The interpreter rounds towards 0.
    torch.testing.assert_close(wide, narrow.float(), rtol=2**-7, atol=0)
    wide.sum().backward()
    assert leaves[0].grad.dtype == torch.bfloat16


@needs_interpreter
def test_triton_takes_no_rows():
    leaves = make(1, 8, gated=True, device=DEVICE)
    x, gate = (leaf.detach()[:0].requires_grad_() for leaf in (leaves[0], leaves[3]))
    y = fused(x, leaves[1], leaves[2], gate)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 8)
    assert (leaves[1].grad == 0).all()


@needs_interpreter
def test_triton_has_no_second_derivative():
    x, weight, bias, _ = make(2, 8, device=DEVICE)
    (gradient,) = torch.autograd.grad(fused(x, weight, bias, None).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_case_by_hand():
    x = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    weight, bias = torch.tensor([2.0, 5.0]).double(), torch.tensor([0.5, 0.0]).double()
    expected = torch.tensor([[-1.5, 5.0]]).double()
    torch.testing.assert_close(layer_norm(x, weight, bias, epsilon=0.0), expected)
    gate = torch.tensor([[0.0, 2.0]]).double()
    torch.testing.assert_close(
        layer_norm(x, weight, bias, gate=gate, epsilon=0.0), expected * gate / (1 + torch.exp(-gate))
    )


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("narrow", [False, True])
def test_autocast_decides_on_the_type(gated, narrow):
    x, weight, bias, gate = make(3, 5, 8, gated=gated)
    plain = layer_norm(x, weight, bias, gate=gate, narrow=narrow)
    assert plain.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer_norm(x, weight, bias, gate=gate, narrow=narrow)
    assert y.dtype == (torch.bfloat16 if narrow else torch.float32)
    torch.testing.assert_close(y.float(), plain, rtol=1e-2, atol=1e-2)


def test_float64_and_compilers_get_torchs_own(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("the kernel was called")

    x, weight, bias, gate = make(3, 8, gated=True, dtype=torch.float64)
    weight, bias = weight.detach().double(), bias.detach().double()
    monkeypatch.setattr("mhsvm.ops.fused.layer_norm_launch.layer_norm", refuse)
    monkeypatch.setattr("mhsvm.ops.availability.unavailable_reason", lambda: None)
    expected = F.layer_norm(x, (8,), weight, bias) * F.silu(gate)
    assert torch.equal(layer_norm(x, weight, bias, gate=gate), expected)

    monkeypatch.setattr("mhsvm.ops.availability.unsupported_tensor_reason", lambda x: None)
    compiled = torch.compile(layer_norm, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, weight, bias, gate=gate), expected)
    monkeypatch.setenv("MHSVM_BACKEND", "reference")
    assert torch.equal(layer_norm(x, weight, bias, gate=gate), expected)


@needs_interpreter
def test_triton_is_taken_where_it_runs(monkeypatch):
    calls = []

    def spy(x, weight, bias, gate, *, epsilon, dtype):
        calls.append(dtype)
        return fused(x, weight, bias, gate, dtype)

    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    monkeypatch.setattr("mhsvm.ops.fused.layer_norm_launch.layer_norm", spy)
    x, weight, bias, gate = make(3, 8, gated=True, device=DEVICE)
    layer_norm(x, weight, bias, gate=gate.bfloat16())
    layer_norm(x.bfloat16(), weight, bias)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        layer_norm(x.bfloat16(), weight, bias)
        layer_norm(x, weight, bias, narrow=True)
    assert calls == [torch.float32, torch.bfloat16, torch.float32, torch.bfloat16]


def test_shapes_that_do_not_belong_together():
    x, weight = torch.ones(2, 3, 8), torch.ones(8)
    message = r"one number a channel, that is x.shape\[-1:\]; received x \(2, 3, 8\), weight \(3,\), bias \(8,\)"
    with pytest.raises(ValueError, match=message):
        layer_norm(x, torch.ones(3), weight)
    with pytest.raises(ValueError, match=r"the gate is shaped like x, \(2, 3, 8\); received \(2, 8\)"):
        layer_norm(x, weight, weight, gate=torch.ones(2, 8))
