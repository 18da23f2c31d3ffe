import pytest
import torch
import torch.nn.functional as F

from mhsvm.layers import BidirectionalMamba, Mamba


@pytest.mark.parametrize("length", [1, 7])
def test_matches_two_mamba_blocks_of_shared_ends(length):
    torch.manual_seed(0)
    block = BidirectionalMamba(5, d_state=3, d_conv=2, backend="reference").double()
    x = torch.randn(2, length, 5, dtype=torch.float64)
    _, z = block.in_proj(x).split(10, dim=-1)
    gated = []
    for direction, sequence in zip((block.ahead, block.back), (x, x.flip(1)), strict=True):
        one = Mamba(5, d_state=3, d_conv=2, backend="reference").double()
        one.load_state_dict({**one.state_dict(), **direction.state_dict(), "in_proj.weight": block.in_proj.weight})
        one.out_proj = torch.nn.Identity()
        gated.append(one(sequence))
    expected = block.out_proj(gated[0] + gated[1].flip(1))
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
    assert z.shape == (2, length, 10)


def test_matches_the_recurrence_written_out():
    torch.manual_seed(0)
    block = BidirectionalMamba(4, d_state=2, d_conv=3, expand=1, backend="reference").double()
    x = torch.randn(1, 5, 4, dtype=torch.float64)
    u, z = block.in_proj(x).split(4, dim=-1)
    total = 0
    for direction, steps in zip((block.ahead, block.back), ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]), strict=True):
        state, outputs = torch.zeros(1, 4, 2, dtype=torch.float64), {}
        for i, t in enumerate(steps):
            taps = [u[:, steps[i - 2 + f]] if i - 2 + f >= 0 else torch.zeros(1, 4) for f in range(3)]
            kernel = direction.conv1d.weight[:, 0]
            value = F.silu(sum(kernel[:, f] * taps[f] for f in range(3)) + direction.conv1d.bias)
            low_rank, B, C = direction.x_proj(value).split([1, 2, 2], dim=-1)
            delta = F.softplus(direction.dt_proj(low_rank))
            state = torch.exp(-delta[..., None] * direction.A_log.exp()) * state + (delta * value)[..., None] * B
            outputs[t] = (state * C).sum(-1) + direction.D * value
        total = total + torch.stack([outputs[t] for t in range(5)], dim=1)
    torch.testing.assert_close(block(x), block.out_proj(total * F.silu(z)), rtol=1e-12, atol=1e-12)


def test_every_step_reaches_all_others():
    torch.manual_seed(0)
    block = BidirectionalMamba(6)
    x = torch.randn(1, 9, 6, requires_grad=True)
    block(x)[0, 4].sum().backward()
    assert (x.grad.abs().amax(dim=2) > 0).all()


def test_adapters_on_its_layers_are_called():
    torch.manual_seed(0)
    block = BidirectionalMamba(6)
    calls = []
    for name in ("in_proj", "ahead.conv1d", "back.x_proj", "back.dt_proj", "out_proj"):
        block.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    block(torch.randn(1, 5, 6))
    assert len(calls) == 5
