"""What the gates of a network do, held against the formulas."""

import pytest
import torch

from mhsvm.evaluation.gates import check_gate_maps, measure_gates
from mhsvm.models import create_model

SMALL = {"patterns": ("C", "S"), "dims": (8, 16), "depths": (1, 1), "decoder_depths": (1, 1), "d_state": 2}


def routes_of(model, image):
    """Outputs (m, k, l, d) of the routes of the first block."""
    outputs = []
    block = model.encoder[0].blocks[0]
    with block.mixer.scan.s6.register_forward_hook(lambda layer, inputs, output: outputs.append(output[0])):
        model(image[None])
    return outputs[0].double()


@pytest.mark.parametrize(
    ("arguments", "weigh"),
    [
        ({"gate": "relu", "gate_threshold": 0.9}, lambda cv: (cv - 0.9).clamp(min=0)),
        ({"gate": "sigmoid"}, torch.sigmoid),
        ({"gate": "exp", "gate_learnable": True}, torch.exp),
        ({"gate": "none"}, torch.ones_like),
    ],
    ids=["relu", "sigmoid", "exp", "none"],
)
def test_gates_closed_cells_and_shares_follow_their_formulas(arguments, weigh):
    torch.manual_seed(0)
    model = create_model("mhs_vm", **SMALL, **arguments).eval()
    images = torch.rand(2, 3, 32, 48)
    blocks = measure_gates(model, images)
    assert len(blocks) == 4
    for place, image in enumerate(images):
        with torch.inference_mode():
            y = routes_of(model, image)
        above = (y - y.amin(dim=1, keepdim=True)).mean(dim=1)
        gate = weigh(y.std(dim=1) / (above + 1e-5))  # (m, l, d)
        expected = gate.mean(dim=-1).view(2, 8, 12)
        torch.testing.assert_close(torch.from_numpy(blocks[0].gate[place]).double(), expected, rtol=1e-4, atol=1e-4)
        closed = (gate == 0).double().mean(dim=(1, 2))
        torch.testing.assert_close(torch.from_numpy(blocks[0].closed[place]), closed, rtol=0, atol=2e-3)
        share = y.abs().sum(dim=(2, 3)) / y.abs().sum(dim=(1, 2, 3))[:, None]
        torch.testing.assert_close(torch.from_numpy(blocks[0].route_share[place]), share, rtol=1e-6, atol=0)
    assert (arguments["gate"] == "relu") == bool(blocks[0].closed.any())


def test_watching_changes_nothing_and_ends():
    model = create_model("mhs_vm", **SMALL).eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        before = model(image)
        measure_gates(model, image)
        assert torch.equal(model(image), before)
    assert not any(layer._forward_pre_hooks for layer in model.modules())


def test_a_network_without_gates():
    with pytest.raises(ValueError, match="UltraLightVMUNet has no gates over scan routes: only MHS-VM has them"):
        measure_gates(create_model("ultralight_vm_unet"), torch.rand(1, 3, 32, 32))


def test_blocks_with_branches_are_refused():
    model = create_model("mhs_vm", **SMALL, branches=2)
    with pytest.raises(ValueError, match="this network has 2 branches: leave `gate_maps` out"):
        check_gate_maps(model, ["a"], ["a"])


def test_another_fusion_keeps_the_gates():
    """Their values are those of the routes, however these are fused."""
    torch.manual_seed(0)
    summed = create_model("mhs_vm", **SMALL, gate_threshold=0.9).eval()
    fused = create_model("mhs_vm", **SMALL, gate_threshold=0.9, fusion="statistics").eval()
    fused.load_state_dict(summed.state_dict(), strict=False)
    image = torch.rand(1, 3, 32, 32)
    # the fusions begin as the sum
    torch.testing.assert_close(fused(image), summed(image), rtol=1e-4, atol=1e-5)
    for one, other in zip(measure_gates(summed, image), measure_gates(fused, image), strict=True):
        torch.testing.assert_close(torch.from_numpy(other.gate), torch.from_numpy(one.gate), rtol=1e-3, atol=1e-3)
