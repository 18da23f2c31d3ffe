"""EGE-UNet: published parameters, its attention and bridge by their formulas, deep supervision."""

import pytest
import torch
import torch.nn.functional as F

import mhsvm
from mhsvm.complexity import measure_complexity
from mhsvm.models import create_model
from mhsvm.models.ege_unet import GroupAggregationBridge, HadamardAttention
from mhsvm.models.recognition import recognize
from mhsvm.models.registry import MODELS


def channel_norm(x):
    return (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()


def test_published_parameters_and_macs():
    counted = measure_complexity(create_model("ege_unet", backend="cpu"))
    assert counted.parameters == 53_374
    assert counted.macs.layers == 72_096_256


def test_keys_of_the_authors(published_state):
    model = create_model("ege_unet", num_classes=2, channels=(4, 4, 8, 8, 12, 16))
    state = published_state("ege_unet", model)
    expected = {
        "encoder4.0.params_zx": (1, 1, 2, 8),
        "decoder1.0.conv_xy.2.weight": (4, 4, 1, 1),
        "encoder5.0.ldw.2.weight": (12, 8, 1, 1),
        "encoder6.0.dw.0.bias": (3,),
        "GAB1.pre_project.weight": (4, 4, 1, 1),
        "GAB5.g3.0.weight": (8,),
        "GAB5.tail_conv.1.weight": (12, 32, 1, 1),
        "gt_conv1.0.weight": (2, 12, 1, 1),
        "gt_conv5.0.weight": (2, 4, 1, 1),
        "dbn1.weight": (12,),
        "final.bias": (2,),
    }
    assert {key: tuple(state[key].shape) for key in expected} == expected
    assert recognize(state) == ("ege_unet", {"num_classes": 2, "in_channels": 3, "channels": (4, 4, 8, 8, 12, 16)})


def test_attention_is_a_product_with_each_axis():
    torch.manual_seed(0)
    layer = HadamardAttention(8, 8, backend="reference").double()
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    seen = []
    layer.out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for weights in (layer.weights_xy, layer.weights_zx, layer.weights_zy):
            weights.normal_()
        layer(x)
        area, rows, columns, rest = channel_norm(x).chunk(4, dim=1)
        by_area = layer.conv_xy(F.interpolate(layer.weights_xy, size=(5, 6), mode="bilinear", align_corners=True))
        by_row = layer.conv_zx(F.interpolate(layer.weights_zx[0], size=5, mode="linear", align_corners=True))
        by_column = layer.conv_zy(F.interpolate(layer.weights_zy[0], size=6, mode="linear", align_corners=True))
        expected = [
            area * by_area,
            torch.einsum("bchw,ch->bchw", rows, by_row[0]),
            torch.einsum("bchw,cw->bchw", columns, by_column[0]),
            layer.local(rest),
        ]
    torch.testing.assert_close(seen[0], channel_norm(torch.cat(expected, dim=1)))


def test_each_group_of_the_bridge_has_a_quarter_of_both_maps_and_the_mask():
    torch.manual_seed(0)
    bridge = GroupAggregationBridge(8, 4, mask_channels=1, backend="reference")
    deep, skip, mask = torch.randn(1, 8, 3, 3), torch.randn(1, 4, 6, 6), torch.randn(1, 1, 6, 6)
    seen = []
    for group in bridge.groups:
        group.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        assert bridge(deep, skip, mask).shape == skip.shape
        raised = F.interpolate(bridge.project(deep), size=(6, 6), mode="bilinear", align_corners=True)
    for i in range(4):
        assert torch.equal(seen[i], torch.cat([raised[:, i : i + 1], skip[:, i : i + 1], mask], dim=1))
    assert [group[1].dilation for group in bridge.groups] == [(1, 1), (2, 2), (5, 5), (7, 7)]


def test_training_returns_the_logits_and_five_masks(small_model):
    model = small_model("ege_unet", num_classes=2)
    image = torch.randn(2, 3, 32, 64)
    logits = model(image)
    main, *masks = model.train()(image)
    assert torch.equal(main, logits)
    assert [tuple(mask.shape) for mask in masks] == [(2, 2, 32, 64)] * 5
    # the deepest is one row of two cells, enlarged
    torch.testing.assert_close(masks[0], masks[0][:, :, :1].expand_as(masks[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (8, 16, 24)}, "channels are six widths, multiples of 4; received"),
        ({"channels": (8, 16, 24, 32, 48, 62)}, "channels are six widths, multiples of 4; received"),
        ({"auxiliary_weights": (1, 1)}, "auxiliary_weights are five numbers, at least 0; received"),
        ({"auxiliary_weights": (1, 1, 1, 1, -1)}, "auxiliary_weights are five numbers, at least 0; received"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("ege_unet", **arguments)


def test_the_loss_falls_in_a_training(workplace, make_set):
    name = "ege_unet"
    path = make_set(num=10, side=32)
    settings = {"model.name": name, f"model.{name}.channels": MODELS[name].small["channels"], "run.device": "cpu"}
    settings |= {"data.set": str(path), "data.split": "ratio-60-20-20-1", "train.epochs": 6, "train.batch_size": 2}
    run = mhsvm.train({**settings, "optimizer.AdamW.lr": 0.01}, folder="run")
    losses = [epoch["train_loss"] for epoch in run.history]
    assert losses[-1] < 0.9 * losses[0]
    assert set(mhsvm.evaluate(run, path, device="cpu").metrics) >= {"miou", "dsc"}
