"""MALUNet: published parameters, its attentions by their formulas, initial values."""

import pytest
import torch
import torch.nn.functional as F

import mhsvm
from mhsvm.complexity import measure_complexity
from mhsvm.models import create_model
from mhsvm.models.malunet import DilatedGatedAttention, ExternalAttention
from mhsvm.models.recognition import recognize
from mhsvm.models.registry import MODELS


def test_published_parameters_and_macs():
    model = create_model("malunet", backend="cpu")
    counted = measure_complexity(model)
    assert counted.parameters == 177_943
    assert counted.macs.layers == 82_740_224
    norms = [module for module in model.modules() if isinstance(module, torch.nn.GroupNorm)]
    # the paper's 0.175 M
    assert counted.parameters - sum(2 * norm.num_channels for norm in norms) == 175_031


@pytest.mark.parametrize("split_att", ["fc", "conv"])
def test_keys_of_the_authors(published_state, split_att):
    arguments = {"channels": (4, 4, 8, 8, 12, 16), "split_att": split_att, "bridge": True}
    model = create_model("malunet", num_classes=2, **arguments)
    state = published_state("malunet", model)
    expected = {
        "encoder4.0.linear_0.weight": (32, 8, 1),
        "encoder4.0.conv2.weight": (8, 8, 1, 1),
        "encoder5.1.mda3.weight": (2, 1, 3, 3),
        "encoder5.1.gau.w2.0.conv1.weight": (8, 1, 5, 5),
        "encoder5.1.gau.wo.0.norm_layer.weight": (8,),
        "decoder1.0.gau.cw.weight": (12, 16, 1, 1),
        "decoder3.1.norm_layer.bias": (8,),
        "decoder5.0.weight": (4, 4, 3, 3),
        "scab.satt.shared_conv2d.0.weight": (1, 2, 7, 7),
        "scab.catt.get_all_att.weight": (1, 1, 3),
        "final.weight": (2, 4, 1, 1),
    }
    assert {key: tuple(state[key].shape) for key in expected} == expected
    assert recognize(state) == ("malunet", {"num_classes": 2, "in_channels": 3, **arguments})


def test_external_attention_normalizes_over_positions_then_slots():
    torch.manual_seed(0)
    layer = ExternalAttention(4).double()
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    with torch.no_grad():
        found = layer(x)
        tokens = layer.query(x).flatten(2).transpose(1, 2)  # (b, positions, c)
        attention = (tokens @ layer.keys.weight[:, :, 0].T).softmax(dim=1)
        attention = attention / attention.sum(dim=2, keepdim=True)
        read = (attention @ layer.values.weight[:, :, 0].T).transpose(1, 2).reshape(x.shape)
        expected = F.gelu(x + F.group_norm(F.conv2d(read, layer.out.weight), 4))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_each_quarter_of_the_channels_has_its_dilation():
    layer = DilatedGatedAttention(8, 12)
    assert layer(torch.randn(1, 8, 6, 6)).shape == (1, 12, 6, 6)
    x = torch.zeros(1, 8, 17, 17)
    x[:, :, 8, 8] = 1
    with torch.no_grad():
        for conv, part, dilation in zip(layer.dilated, x.chunk(4, dim=1), (7, 5, 2, 1), strict=True):
            rows = (conv(part) - conv.bias[:, None, None]).abs().sum(dim=(0, 1, 3)).nonzero().flatten()
            assert rows.tolist() == [8 - dilation, 8, 8 + dilation]


def test_keys_of_the_memory_start_as_its_values():
    torch.manual_seed(0)
    layers = [module for module in create_model("malunet").modules() if isinstance(module, ExternalAttention)]
    assert len(layers) == 6
    for layer in layers:
        assert torch.equal(layer.keys.weight, layer.values.weight.transpose(0, 1))
        assert layer.keys.weight.data_ptr() != layer.values.weight.data_ptr()
        # sqrt(2 / channels)
        assert layer.keys.weight.std().item() == pytest.approx((2 / layer.query.in_channels) ** 0.5, rel=0.1)


@pytest.mark.parametrize("channels", [(8, 16, 24), (8, 16, 24, 30, 48, 64)])
def test_bad_widths_are_refused(channels):
    with pytest.raises(ValueError, match="channels are six widths, multiples of 4; received"):
        create_model("malunet", channels=channels)


def test_the_loss_falls_in_a_training(workplace, make_set):
    name = "malunet"
    path = make_set(num=10, side=32)
    settings = {"model.name": name, f"model.{name}.channels": MODELS[name].small["channels"], "run.device": "cpu"}
    settings |= {"data.set": str(path), "data.split": "ratio-60-20-20-1", "train.epochs": 6, "train.batch_size": 2}
    run = mhsvm.train({**settings, "optimizer.AdamW.lr": 0.01}, folder="run")
    losses = [epoch["train_loss"] for epoch in run.history]
    assert losses[-1] < 0.9 * losses[0]
    assert set(mhsvm.evaluate(run, path, device="cpu").metrics) >= {"miou", "dsc"}
