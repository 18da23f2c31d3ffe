import pytest
import torch
import torch.nn.functional as F

from mhsvm.layers import Mamba2


def test_matches_the_recurrence_of_heads_written_out():
    torch.manual_seed(0)
    block = Mamba2(6, head_width=4, d_state=3, d_conv=2, backend="reference").double()
    with torch.no_grad():
        block.D.uniform_(0.5, 1.5)
        block.norm_weight.uniform_(0.5, 1.5)
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    z, convolved, delta = block.in_proj(x).split([12, 18, 3], dim=-1)
    previous = F.pad(convolved, (0, 0, 1, 0))[:, :-1]
    kernel = block.conv1d.weight[:, 0]
    convolved = F.silu(kernel[:, 0] * previous + kernel[:, 1] * convolved + block.conv1d.bias)
    u, B, C = convolved.split([12, 3, 3], dim=-1)
    u = u.reshape(2, 7, 3, 4)  # three heads of four channels
    delta = F.softplus(delta + block.dt_bias)
    state, outputs = torch.zeros(2, 3, 4, 3, dtype=torch.float64), []
    for t in range(7):
        # one number a head decays its whole state
        decay = torch.exp(-delta[:, t] * block.A_log.exp())
        added = torch.einsum("bm,bme,bn->bmen", delta[:, t], u[:, t], B[:, t])
        state = decay[:, :, None, None] * state + added
        outputs.append(torch.einsum("bmen,bn->bme", state, C[:, t]) + block.D[:, None] * u[:, t])
    y = torch.stack(outputs, dim=1).reshape(2, 7, 12) * F.silu(z)
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * block.norm_weight
    torch.testing.assert_close(block(x), block.out_proj(y), rtol=1e-12, atol=1e-12)


def test_initial_values():
    torch.manual_seed(0)
    block = Mamba2(64, head_width=2)
    assert block.A_log.shape == block.D.shape == block.dt_bias.shape == (64,)
    assert 1 <= block.A_log.exp().min() < block.A_log.exp().max() <= 16
    delta = F.softplus(block.dt_bias)
    assert 1e-3 * 0.999 <= delta.min() < delta.max() <= 0.1 * 1.001
    assert block.in_proj.out_features == 2 * 128 + 2 * 16 + 64


def test_is_causal():
    torch.manual_seed(0)
    block = Mamba2(8)
    x = torch.randn(1, 9, 8)
    changed = x.clone()
    changed[:, 5] += 1
    difference = (block(changed) - block(x)).abs().amax(dim=(0, 2))
    assert difference[:5].max() == 0
    assert difference[5:].min() > 0


def test_heads_divide_the_inner_width():
    with pytest.raises(ValueError, match=r"the inner width of the mixer, 1 \* 6 = 6; received 4"):
        Mamba2(6, expand=1)
