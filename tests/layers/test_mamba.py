import pytest
import torch
import torch.nn.functional as F

from mhsvm.layers import Mamba


def test_matches_the_recurrence_written_out():
    torch.manual_seed(0)
    block = Mamba(5, d_state=3, d_conv=2, backend="reference").double()
    x = torch.randn(2, 7, 5, dtype=torch.float64)
    u, z = block.in_proj(x).split(10, dim=-1)
    previous = F.pad(u, (0, 0, 1, 0))[:, :-1]
    kernel = block.conv1d.weight[:, 0]
    u = F.silu(kernel[:, 0] * previous + kernel[:, 1] * u + block.conv1d.bias)
    low_rank, B, C = block.x_proj(u).split([1, 3, 3], dim=-1)
    delta = F.softplus(block.dt_proj(low_rank))
    state = torch.zeros(2, 10, 3, dtype=torch.float64)
    outputs = []
    for t in range(7):
        decay = torch.exp(-delta[:, t, :, None] * block.A_log.exp())
        state = decay * state + (delta[:, t] * u[:, t])[:, :, None] * B[:, t, None]
        outputs.append((state * C[:, t, None]).sum(-1) + block.D * u[:, t])
    expected = block.out_proj(torch.stack(outputs, dim=1) * F.silu(z))
    torch.testing.assert_close(block(x), expected)


def test_is_causal():
    torch.manual_seed(0)
    block = Mamba(8)
    x = torch.randn(1, 9, 8)
    changed = x.clone()
    changed[:, 5] += 1
    difference = (block(changed) - block(x)).abs().amax(dim=(0, 2))
    assert difference[:5].max() == 0
    assert difference[5:].min() > 0


def test_initial_values():
    torch.manual_seed(0)
    block = Mamba(64)
    assert block.dt_rank == 4
    assert block.dt_proj.weight.abs().max() <= 0.5
    assert torch.equal(block.A_log, torch.arange(1, 17).float().log().expand(128, 16))
    assert torch.equal(block.D, torch.ones(128))
    delta = F.softplus(block.dt_proj.bias)
    assert 1e-3 * 0.999 <= delta.min() < 3e-3
    assert 3e-2 < delta.max() <= 0.1 * 1.001
    assert block.in_proj.weight.abs().max().item() == pytest.approx(64**-0.5, rel=0.01)


def test_bfloat16_autocast_stays_close():
    torch.manual_seed(0)
    block = Mamba(16)
    x = torch.randn(2, 20, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = block(x)
    assert (y - block(x)).norm() / block(x).norm() < 0.05
