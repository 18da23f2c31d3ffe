import pytest
import torch
from torch import nn

from mhsvm.layers import PVMLayer
from mhsvm.ops.availability import unavailable_reason
from mhsvm.ops.fused import branches_launch as triton_branches
from mhsvm.ops.fused.branches import composed_join_norm, composed_split_norm, join_norm, split_norm

# Triton's interpreter, or a GPU's Triton on the tensors of a CPU, which it refuses.
needs_interpreter = pytest.mark.skipif(
    not torch.cuda.is_available() and unavailable_reason() is not None, reason="needs Triton's interpreter or a GPU"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("x", "weight", "bias", "skip_scale", "mixing")


def make(b, c, *spatial, branches, dtype=torch.float32, device="cpu"):
    """x, weight, bias, skip_scale and the weight of a mixer on leaves; means far from 0."""
    generator = torch.Generator().manual_seed(c + sum(spatial))

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    v = c // branches
    tensors = 2 * normal(b, c, *spatial) + normal(b, c, *(1 for _ in spatial)) + 5, normal(c), normal(c), normal(1)
    types = dtype, torch.float32, torch.float32, torch.float32, dtype
    return [x.to(device, t).requires_grad_() for x, t in zip((*tensors, normal(v, v)), types, strict=True)]


def outputs_and_gradients(split, join, leaves, *, branches):
    """Of a split, a mixer that works across the channels of a branch, and a join."""
    x, weight, bias, skip_scale, mixing = leaves
    parts = split(x, weight, bias, skip_scale, branches=branches)
    y = join(torch.tanh(parts.parts @ mixing), parts)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradients = torch.autograd.grad(y, leaves, seed.to(y))
    return {"parts": parts.parts, "y": y} | dict(zip(NAMES, gradients, strict=True))


def exact_outputs_and_gradients(leaves, **options):
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    return outputs_and_gradients(composed_split_norm, composed_join_norm, exact, **options)


@pytest.fixture
def _small_grids(monkeypatch):
    """Several tiles a sample, several tiles a program, and as many programs in both directions."""
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    monkeypatch.setattr("mhsvm.ops.fused.branches_launch._TILE", 128)
    monkeypatch.setattr("mhsvm.ops.fused.branches_launch._BACKWARD_TILE", 64)
    monkeypatch.setattr("mhsvm.ops.fused.branches_launch._MAX_PROGRAMS", 3)


# One cell, less than a tile, many; branches and widths that are powers of 2 and that are not.
@needs_interpreter
@pytest.mark.usefixtures("_poisoned_memory", "_small_grids")
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("shape", "branches", "dtype"),
    [
        ((2, 24, 3, 3), 4, torch.float32),
        ((1, 8, 1), 1, torch.float32),
        ((3, 15, 7), 3, torch.float32),
        ((2, 10, 3, 2, 2), 2, torch.float32),
        ((2, 12, 4, 4), 4, torch.bfloat16),
        ((2, 16, 9), 2, torch.float16),
    ],
)
def test_triton_equals_torchs_own(relative_error, tolerance, shape, branches, dtype, last):
    leaves = make(*shape, branches=branches, dtype=dtype, device=DEVICE)
    if last:
        leaves[0] = leaves[0].detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_()
    expected = exact_outputs_and_gradients(leaves, branches=branches)
    actual = outputs_and_gradients(split_norm, join_norm, leaves, branches=branches)
    assert actual["x"].stride() == leaves[0].stride()
    for name, tensor in actual.items():
        # skip_scale is float32, as is then its product with the residual
        assert tensor.dtype == (dtype if name in ("x", "parts", "mixing") else torch.float32), name
        assert relative_error(tensor, expected[name]) < (5e-6 if dtype == torch.float32 else tolerance[dtype]), name


@needs_interpreter
@pytest.mark.usefixtures("_small_grids")
def test_triton_takes_any_layout(relative_error):
    leaves = make(1, 12, 3, 5, branches=2, device=DEVICE)
    expected = exact_outputs_and_gradients(leaves, branches=2)
    padded = torch.full((1, 20, 3, 9), float("nan"), device=DEVICE)
    sliced = padded[:, 4:16, :, 2:7].copy_(leaves[0].detach()).requires_grad_()
    transposed = leaves[0].detach().mT.contiguous().mT.requires_grad_()
    for x in (sliced, transposed):
        assert not x.is_contiguous()

        def join(mixed, parts):
            return join_norm(mixed.mT.contiguous().mT, parts)

        for name, tensor in outputs_and_gradients(split_norm, join, [x, *leaves[1:]], branches=2).items():
            assert relative_error(tensor, expected[name]) < 5e-6, name


@needs_interpreter
@pytest.mark.usefixtures("_small_grids")
def test_triton_gives_the_same_bits_each_time():
    leaves = make(2, 12, 3, 3, branches=4, device=DEVICE)
    first, second = (outputs_and_gradients(split_norm, join_norm, leaves, branches=4) for _ in range(2))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@needs_interpreter
@pytest.mark.usefixtures("_poisoned_memory", "_small_grids")
@pytest.mark.parametrize("used", ["parts", "residual", "rows"])
def test_triton_takes_gradients_of_some_outputs(relative_error, used):
    leaves = make(2, 12, 3, 3, branches=2, device=DEVICE)[:4]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    gradients = []
    for split, tensors in ((composed_split_norm, exact), (split_norm, leaves)):
        parts = split(*tensors, branches=2)
        if used == "rows":
            y = torch.cat(tensors[1:]) if parts.rows is None else parts.rows.sum(0)[:25] / len(parts.rows)
        else:
            y = getattr(parts, used)
        (y**2).sum().backward()
        gradients.append([None if leaf.grad is None else leaf.grad for leaf in tensors])
    for name, actual, expected in zip(NAMES, gradients[1], gradients[0], strict=False):
        expected = torch.zeros_like(actual) if expected is None else expected
        assert relative_error(actual, expected) < 5e-6, name


@needs_interpreter
@pytest.mark.usefixtures("_small_grids")
def test_triton_takes_no_samples():
    leaves = make(1, 8, 4, branches=2, device=DEVICE)
    leaves[0] = leaves[0].detach()[:0].requires_grad_()
    tensors = outputs_and_gradients(split_norm, join_norm, leaves, branches=2)
    assert tensors["y"].shape == (0, 4, 8)
    assert tensors["x"].shape == (0, 8, 4)
    assert all((tensors[name] == 0).all() for name in ("weight", "bias", "skip_scale"))


@needs_interpreter
@pytest.mark.usefixtures("_small_grids")
def test_triton_refuses_a_mixer_that_changes_its_input():
    leaves = make(1, 8, 4, branches=2, device=DEVICE)
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        split_norm(*leaves[:4], branches=2).parts.relu_()


@needs_interpreter
@pytest.mark.usefixtures("_small_grids")
def test_triton_has_no_second_derivative():
    leaves = make(1, 8, 4, branches=2, device=DEVICE)
    (gradient,) = torch.autograd.grad(
        split_norm(*leaves[:4], branches=2).parts.square().sum(), leaves[0], create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@needs_interpreter
@pytest.mark.usefixtures("_small_grids")
def test_triton_is_taken_by_the_layer(monkeypatch, relative_error):
    torch.manual_seed(0)
    layer = PVMLayer(12, 5, branches=2, mixer=lambda width: nn.Linear(width, width)).to(DEVICE)
    with torch.no_grad():
        layer.skip_scale.fill_(0.7)
    x = torch.randn(2, 12, 4, 3, device=DEVICE, requires_grad=True)
    calls, tensors = [], []
    for name in ("split_norm", "join_norm"):
        original = getattr(triton_branches, name)

        def spy(*args, original=original, **kwargs):
            calls.append(original)
            return original(*args, **kwargs)

        monkeypatch.setattr(triton_branches, name, spy)
    for backend in ("auto", "reference"):
        monkeypatch.setenv("MHSVM_BACKEND", backend)
        y = layer(x)
        tensors.append((y, *torch.autograd.grad(y.square().sum(), (x, *layer.parameters()))))
    assert len(calls) == 2
    for actual, expected in zip(*tensors, strict=True):
        assert relative_error(actual, expected) < 5e-6


@pytest.mark.parametrize(
    ("fused", "dtype"),
    [
        (False, torch.float32),
        pytest.param(True, torch.float32, marks=needs_interpreter, id="triton-float32"),
        pytest.param(True, torch.bfloat16, marks=needs_interpreter, id="triton-bfloat16"),
    ],
)
def test_autocast_decides_on_the_type(monkeypatch, fused, dtype):
    monkeypatch.setenv("MHSVM_BACKEND", "auto" if fused else "reference")
    leaves = make(2, 8, 4, branches=2, dtype=dtype, device=DEVICE)[:4]
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        parts = split_norm(*leaves, branches=2)
        assert (parts.rows is not None) == fused
        assert parts.parts.dtype == parts.residual.dtype == torch.float32
        wide, narrow = (join_norm(parts.parts.bfloat16(), parts, narrow=narrow) for narrow in (False, True))
    assert wide.dtype == torch.float32
    assert narrow.dtype == torch.bfloat16
    # The interpreter rounds towards 0.
    torch.testing.assert_close(wide, narrow.float(), rtol=2**-7, atol=2**-20)
    wide.sum().backward()
    assert leaves[0].grad.dtype == dtype


def test_a_case_by_hand():
    x = torch.tensor([[[1.0], [3.0], [5.0], [9.0]]], dtype=torch.float64)
    weight, bias = torch.tensor([1.0, 2.0, 3.0, 4.0]).double(), torch.tensor([0.0, 0.0, 1.0, 0.0]).double()
    parts = split_norm(x, weight, bias, torch.tensor([2.0]).double(), branches=2, epsilon=0.0)
    deviation = 8.75**0.5
    first = torch.tensor([[[-3.5, -3.0]], [[1.5 + deviation, 18.0]]]).double() / deviation
    torch.testing.assert_close(parts.parts, first)
    # what is mixed takes the residual away, up to the numbers -1, 1 and -1, 1
    mixed = torch.tensor([[[-1.0, 1.0]], [[-1.0, 1.0]]]).double() - 2 * first
    torch.testing.assert_close(join_norm(mixed, parts), torch.tensor([[[-1.0, 2.0, -2.0, 4.0]]]).double())


def test_float64_and_compilers_get_torchs_own(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("the kernel was called")

    for name in ("split_norm", "join_norm"):
        monkeypatch.setattr(triton_branches, name, refuse)
    monkeypatch.setattr("mhsvm.ops.availability.unavailable_reason", lambda: None)
    leaves = [leaf.detach().double() for leaf in make(2, 8, 3, 3, branches=2)[:4]]

    def both(*leaves):
        parts = split_norm(*leaves, branches=2)
        return join_norm(parts.parts.cos(), parts)

    expected = both(*leaves)
    monkeypatch.setattr("mhsvm.ops.availability.unsupported_tensor_reason", lambda x: None)
    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*leaves), expected)
    monkeypatch.setenv("MHSVM_BACKEND", "reference")
    assert torch.equal(both(*leaves), expected)


def test_shapes_that_do_not_belong_together():
    x, weight, one = torch.ones(2, 8, 3, 3), torch.ones(8), torch.ones(1)
    message = r"\(b, c, \*spatial\) with c a multiple of branches=3; received \(2, 8, 3, 3\)"
    with pytest.raises(ValueError, match=message):
        split_norm(x, weight, weight, one, branches=3)
    with pytest.raises(ValueError, match=r"branches=0; received \(2, 8, 3, 3\)"):
        split_norm(x, weight, weight, one, branches=0)
    with pytest.raises(ValueError, match=r"received \(2, 8\)"):
        split_norm(x[..., 0, 0], weight, weight, one, branches=2)
    message = r"each of 8 channels, skip_scale has one; received \(8,\), \(3,\), \(1,\)"
    with pytest.raises(ValueError, match=message):
        split_norm(x, weight, torch.ones(3), one, branches=2)
    with pytest.raises(ValueError, match=r"skip_scale has one; received \(8,\), \(8,\), \(8,\)"):
        split_norm(x, weight, weight, weight, branches=2)
    parts = split_norm(x, weight, weight, one, branches=2)
    message = r"keeps the shape of the sequences, \(4, 9, 4\); received \(4, 9, 1\)"
    with pytest.raises(ValueError, match=message):
        join_norm(torch.ones(4, 9, 1), parts)
