import pytest
import torch

from mhsvm.ops.fused.branches import join_norm, split_norm, split_norm_reference

NAMES = ("x", "weight", "bias", "skip_scale")


def make(b, c, *spatial, branches, dtype=torch.float32, device="cpu"):
    """x, weight, bias, skip_scale and the weight of a mixer as leaves; means far from 0."""
    generator = torch.Generator().manual_seed(c + sum(spatial))

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    v = c // branches
    tensors = 2 * normal(b, c, *spatial) + normal(b, c, *(1 for _ in spatial)) + 5, normal(c), normal(c), normal(1)
    types = dtype, torch.float32, torch.float32, torch.float32, dtype
    return [x.to(device, t).requires_grad_() for x, t in zip((*tensors, normal(v, v)), types, strict=True)]


@pytest.mark.interpreter
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("used", ["parts", "residual", "rows"])
def test_triton_takes_gradients_of_some_outputs(relative_error, used, kernel_device):
    leaves = make(2, 12, 3, 3, branches=2, device=kernel_device)[:4]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    gradients = []
    for split, tensors in ((split_norm_reference, exact), (split_norm, leaves)):
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


@pytest.mark.interpreter
def test_triton_takes_no_samples(kernel_device):
    leaves = make(1, 8, 4, branches=2, device=kernel_device)
    leaves[0] = leaves[0].detach()[:0].requires_grad_()
    branches = split_norm(*leaves[:4], branches=2)
    y = join_norm(branches.parts.tanh(), branches)
    y.sum().backward()
    assert y.shape == (0, 4, 8)
    assert leaves[0].grad.shape == (0, 8, 4)
    assert all((leaf.grad == 0).all() for leaf in leaves[1:4])


@pytest.mark.interpreter
def test_triton_refuses_a_mixer_that_changes_its_input(kernel_device):
    leaves = make(1, 8, 4, branches=2, device=kernel_device)
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        split_norm(*leaves[:4], branches=2).parts.relu_()


@pytest.mark.parametrize(
    ("fused", "dtype"),
    [
        (False, torch.float32),
        pytest.param(True, torch.float32, marks=pytest.mark.interpreter, id="triton-float32"),
        pytest.param(True, torch.bfloat16, marks=pytest.mark.interpreter, id="triton-bfloat16"),
    ],
)
def test_autocast_decides_on_the_type(monkeypatch, fused, dtype, kernel_device):
    monkeypatch.setenv("MHSVM_BACKEND", "auto" if fused else "reference")
    leaves = make(2, 8, 4, branches=2, dtype=dtype, device=kernel_device)[:4]
    with torch.autocast(kernel_device.type, dtype=torch.bfloat16):
        parts = split_norm(*leaves, branches=2)
        assert (parts.rows is not None) == fused
        assert parts.parts.dtype == parts.residual.dtype == torch.float32
        wide, narrow = (join_norm(parts.parts.bfloat16(), parts, autocast_output=narrow) for narrow in (False, True))
    assert wide.dtype == torch.float32
    assert narrow.dtype == torch.bfloat16
    # The interpreter rounds toward 0.
    torch.testing.assert_close(wide, narrow.float(), rtol=2**-7, atol=2**-20)
    wide.sum().backward()
    assert leaves[0].grad.dtype == dtype


def test_a_case_by_hand():
    x = torch.tensor([[[1.0], [3.0], [5.0], [9.0]]], dtype=torch.float64)
    weight, bias = torch.tensor([1.0, 2.0, 3.0, 4.0]).double(), torch.tensor([0.0, 0.0, 1.0, 0.0]).double()
    parts = split_norm(x, weight, bias, torch.tensor([2.0]).double(), branches=2, eps=0.0)
    deviation = 8.75**0.5
    first = torch.tensor([[[-3.5, -3.0]], [[1.5 + deviation, 18.0]]]).double() / deviation
    torch.testing.assert_close(parts.parts, first)
    # the mixed sequences cancel the residual, up to the numbers -1, 1 and -1, 1
    mixed = torch.tensor([[[-1.0, 1.0]], [[-1.0, 1.0]]]).double() - 2 * first
    torch.testing.assert_close(join_norm(mixed, parts), torch.tensor([[[-1.0, 2.0, -2.0, 4.0]]]).double())


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
