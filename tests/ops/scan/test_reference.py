import math

import pytest
import torch

from mhsvm.ops.scan import reference


def ones(*shape):
    return torch.ones(*shape, dtype=torch.float64)


def test_constant_decay_sums_a_geometric_series():
    delta, rate, length = 0.25, 0.8, 40
    u, B = ones(1, length, 1), ones(1, length, 1, 1)
    y, state = reference.selective_scan(u, delta * u, -rate * ones(1, 1), B, B, return_last_state=True)
    decay = math.exp(-rate * delta)
    expected = torch.tensor([delta * (1 - decay ** (t + 1)) / (1 - decay) for t in range(length)], dtype=torch.float64)
    torch.testing.assert_close(y[0, :, 0], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(state, expected[-1].reshape(1, 1, 1), rtol=1e-12, atol=0)


def test_one_impulse_decays_by_the_sum_of_steps():
    length = 12
    delta = torch.rand(1, length, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    A = torch.tensor([[-0.5, -2.0], [-1.0, -3.0]], dtype=torch.float64)
    u = torch.zeros(1, length, 2, dtype=torch.float64)
    u[:, 0] = 1
    y = reference.selective_scan(u, delta, A, ones(1, length, 1, 2), ones(1, length, 1, 2))
    since = delta.cumsum(1) - delta[:, :1]
    expected = delta[:, :1] * torch.exp(A * since[..., None]).sum(-1)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=0)


def test_channels_use_the_b_and_c_of_their_group():
    u = ones(1, 1, 4)
    B = torch.tensor([2.0, 3.0], dtype=torch.float64).reshape(1, 1, 2, 1)
    C = torch.tensor([5.0, 7.0], dtype=torch.float64).reshape(1, 1, 2, 1)
    y = reference.selective_scan(u, u, -ones(4, 1), B, C)
    assert y.flatten().tolist() == [10, 10, 21, 21]


def test_optional_arguments_act_where_the_formula_puts_them():
    u, delta, bias, z = 2 * ones(1, 1, 1), -ones(1, 1, 1), 0.5 * ones(1), 3 * ones(1, 1, 1)
    y = reference.selective_scan(
        u, delta, -ones(1, 1), ones(1, 1, 1, 1), ones(1, 1, 1, 1), 7 * ones(1), z, bias, delta_softplus=True
    )
    expected = (math.log1p(math.exp(-0.5)) * 2 + 7 * 2) * 3 / (1 + math.exp(-3))
    assert y.item() == pytest.approx(expected, rel=1e-12)


def test_softplus_returns_large_values_unchanged():
    delta = reference.finish_delta(torch.tensor([[[20.5, 19.5]]]), None, True)
    assert delta[0, 0, 0] == 20.5
    assert delta[0, 0, 1] == pytest.approx(math.log1p(math.exp(19.5)), rel=1e-6)


@pytest.mark.parametrize("delta_softplus", [False, True])
def test_gradients_with_every_option(sequence_inputs, delta_softplus):
    inputs = sequence_inputs(b=2, d=4, n=2, length=5, groups=2)

    def scan(*tensors):
        return reference.selective_scan(*tensors, delta_softplus=delta_softplus, return_last_state=True)

    assert torch.autograd.gradcheck(scan, tuple(inputs.values()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_output_in_the_type_of_u_and_state_never_in_16_bits(sequence_inputs, dtype):
    y, state = reference.selective_scan(**sequence_inputs(dtype=dtype), return_last_state=True)
    assert y.dtype == dtype
    assert state.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
