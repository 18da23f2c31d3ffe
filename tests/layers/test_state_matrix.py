import pytest
import torch

from mhsvm.layers.state_matrix import state_matrix


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 5, 3)])
def test_is_minus_exp(shape):
    log = torch.randn(shape, requires_grad=True)
    A = state_matrix(log)
    torch.testing.assert_close(A, -torch.exp(log))
    seed = torch.randn(shape)
    (gradient,) = torch.autograd.grad(A, log, seed)
    (expected,) = torch.autograd.grad(-torch.exp(log), log, seed)
    torch.testing.assert_close(gradient, expected)


def test_differentiates_twice():
    log = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(state_matrix, log)
    assert torch.autograd.gradgradcheck(state_matrix, log)


def test_a_state_s_channels_lie_side_by_side():
    """The memory order of A and of its gradient, so that neither is copied."""
    log = torch.randn(4, 5, 3, requires_grad=True)
    A = state_matrix(log)
    assert A.mT.is_contiguous()
    (gradient,) = torch.autograd.grad(A, log, torch.randn(4, 3, 5).mT)
    assert gradient.mT.is_contiguous()


def test_torch_compile_gets_plain_operations():
    log = torch.randn(5, 3)
    compiled = torch.compile(state_matrix, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(log), state_matrix(log))
