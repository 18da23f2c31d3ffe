import pytest
import torch

from mhsvm.models import create_model
from mhsvm.models.recognition import Layout, identify, recognise

VARIANTS = [
    ("mhs_vm", {"patterns": ("C", "X", "S"), "project": False, "dims": (12, 24), "num_classes": 4}),
    ("mhs_vm", {"patterns": ("C", "X", "S", "Z"), "in_channels": 1, "d_state": 8}),
    ("vm_unet", {"dims": (8, 16, 32), "depths": (1, 3, 1), "decoder_depths": (2, 1, 1)}),
    ("ultralight_vm_unet", {"branches": 1, "split_att": "conv", "expand": 1}),
    ("ultralight_vm_unet", {"bridge": False, "channels": (4, 8, 8, 16, 24, 32), "d_conv": 3}),
]


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_a_published_file_says_how_its_network_was_built(name, changes, small_model, published_state):
    model = small_model(name, **changes)
    state = published_state(name, model)
    recognised, arguments = recognise(state)
    assert recognised == name
    for key, value in changes.items():
        assert arguments[key] == value
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    built = create_model(recognised, **arguments)
    assert {key: value.shape for key, value in built.state_dict().items()} == shapes
    assert recognise({"epoch": 3, "model_state_dict": state}) == (recognised, arguments)


@pytest.mark.parametrize("name", ["mhs_vm", "vm_unet", "ultralight_vm_unet"])
def test_names_tell_networks_and_layouts_apart(name, small_model, published_state):
    model = small_model(name)
    assert identify(model.state_dict()) == (name, Layout.OURS)
    published = {key.removeprefix("vmunet."): value for key, value in published_state(name, model).items()}
    assert identify(published) == (name, Layout.PUBLISHED)
    assert identify(["layer1.0.conv1.weight", "fc.weight"]) is None


def test_what_is_not_published_is_not_recognised(small_model, published_state):
    with pytest.raises(ValueError, match="names of no network of this package, beginning with fc.weight"):
        recognise({"fc.weight": torch.ones(1)})
    with pytest.raises(ValueError, match="these are the names of this package"):
        recognise(small_model("vm_unet").state_dict())
    encoder = {
        key.removeprefix("vmunet."): value
        for key, value in published_state("vm_unet", small_model("vm_unet")).items()
        if key.startswith("vmunet.layers.")
    }
    with pytest.raises(ValueError, match="these are the names of VMamba"):
        recognise({"model": encoder})


def test_an_incomplete_file_names_what_it_lacks(small_model, published_state):
    state = published_state("mhs_vm", small_model("mhs_vm"))
    del state["vmunet.final_conv.weight"]
    with pytest.raises(ValueError, match="holds weights of mhs_vm, but lacks final_conv.weight"):
        recognise(state)
