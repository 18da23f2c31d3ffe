import pytest
import torch

from mhsvm.layers import DropPath


def test_whole_samples_are_dropped_as_often_as_said_and_the_others_scaled():
    torch.manual_seed(0)
    layer = DropPath(0.25).train()
    branch = torch.rand(4000, 2, 3) + 1
    ratio = (layer(branch) / branch).flatten(1)
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio))
    dropped = ratio[:, 0] == 0
    # four standard deviations of the fraction
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)
    assert torch.allclose(ratio[~dropped], torch.tensor(1 / 0.75))


def test_nothing_is_drawn_at_rate_0_nor_in_evaluation():
    branch = torch.rand(2, 3)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert DropPath(0.0).train()(branch) is branch
    assert DropPath(0.5).eval()(branch) is branch
    assert torch.equal(torch.rand(1), expected)


def test_the_type_stays_and_checkpoints_hold_nothing():
    layer = DropPath(0.1).train()
    assert layer(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer.state_dict() == {}
    assert repr(layer) == "DropPath(rate=0.1)"


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_out_of_range(rate):
    with pytest.raises(ValueError, match="the rate of dropped branches is at least 0 and below 1; received"):
        DropPath(rate)
