import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mhsvm.layers import Mamba, PVMLayer
from mhsvm.models import create_model


@pytest.mark.parametrize(("branches", "expected"), [(1, 136_269), (2, 69_589), (4, 49_457)])
def test_has_the_published_number_of_parameters(branches, expected):
    model = create_model("ultralight_vm_unet", branches=branches)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_paper_initialisation_reaches_the_mamba_blocks():
    torch.manual_seed(0)
    model = create_model("ultralight_vm_unet", channels=(32, 64, 128, 128, 128, 128))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            if module.weight.numel() > 500:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.bias is None or (module.bias == 0).all()
        elif isinstance(module, nn.Conv2d):
            assert (module.bias == 0).all()
            if module.weight.numel() > 500:
                deviation = math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels))
                assert module.weight.std().item() == pytest.approx(deviation, rel=0.1)
        elif isinstance(module, Mamba):
            deviation = math.sqrt(2 / (4 * module.conv1d.out_channels))
            assert module.conv1d.weight.std().item() == pytest.approx(deviation, rel=0.2)
            assert 0 < module.conv1d.bias.abs().max() <= 0.5
            assert torch.equal(module.A_log, torch.arange(1, 17).float().log().expand_as(module.A_log))
            assert (module.D == 1).all()
        elif isinstance(module, PVMLayer):
            assert module.skip_scale.item() == 1


def test_mamba_initialisation_keeps_the_blocks_as_their_authors_draw_them():
    torch.manual_seed(0)
    model = create_model("ultralight_vm_unet", init="mamba")
    blocks = [module for module in model.modules() if isinstance(module, Mamba)]
    assert len(blocks) == 6
    for block in blocks:
        steps = F.softplus(block.dt_proj.bias)
        assert steps.min() > 0.9e-3
        assert steps.max() < 0.11
        width = block.in_proj.in_features
        assert block.in_proj.weight.abs().max().item() == pytest.approx(width**-0.5, rel=0.1)
    outside = [module.proj for module in model.modules() if isinstance(module, PVMLayer)]
    assert all((linear.bias == 0).all() and linear.weight.abs().max() < 0.1 for linear in outside)


def test_the_bridge_can_be_left_out():
    torch.manual_seed(0)
    model = create_model("ultralight_vm_unet", bridge=False)
    assert not list(model.bridge.parameters())
    assert model(torch.randn(1, 3, 32, 64)).shape == (1, 1, 32, 64)


def test_variants_are_arguments():
    model = create_model("ultralight_vm_unet", split_att="conv", d_state=8, d_conv=3, expand=1)
    assert model.bridge.gates[0].weight.shape == (8, 128, 1)
    block = model.encoder[3].mixer
    assert block.A_log.shape == (6, 8)
    assert block.conv1d.kernel_size == (3,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": (8, 16, 24)}, r"six widths, the first five multiples of 4; received \(8, 16, 24\)"),
        ({"channels": (8, 16, 24, 32, 50, 64)}, "the first five multiples of 4"),
        ({"branches": 5}, "the branches must divide in_channels; received in_channels=24, branches=5"),
        ({"init": "xavier"}, "init is paper or mamba; received 'xavier'"),
        ({"split_att": "mlp"}, "split_att is one of fc, conv; received 'mlp'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("ultralight_vm_unet", **arguments)
