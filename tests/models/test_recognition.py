import pytest
import torch

from mhsvm.models import create_model
from mhsvm.models.recognition import identify, recognize
from mhsvm.models.registry import MODELS, Network
from mhsvm.models.weight_format import KeyMark
from tests.fixtures.networks import OWN_NETWORKS

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
    recognized, arguments = recognize(state)
    assert recognized == name
    for key, value in changes.items():
        assert arguments[key] == value
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    built = create_model(recognized, **arguments)
    assert {key: value.shape for key, value in built.state_dict().items()} == shapes
    assert recognize({"epoch": 3, "model_state_dict": state}) == (recognized, arguments)


@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_names_tell_networks_and_layouts_apart(name, small_model, published_state):
    model = small_model(name)
    ours, published = identify(model.state_dict()), published_state(name, model)
    assert (ours.name, ours.format) == (name, None)
    format = MODELS[name].formats[0]
    for state in (published, format.strip(published)):
        found = identify(state)
        assert (found.name, found.format) == (name, format)
        assert found.state.keys() == format.strip(published).keys()
    assert identify({"layer1.0.conv1.weight": torch.ones(1), "fc.weight": torch.ones(1)}) is None


def test_the_order_of_registration_does_not_matter(small_model, published_state, monkeypatch):
    states = [published_state(name, small_model(name)) for name in OWN_NETWORKS]
    states += [small_model(name).state_dict() for name in OWN_NETWORKS]
    before = [(found.name, found.format) for found in map(identify, states)]
    monkeypatch.setattr(MODELS, "_entries", dict(reversed(list(MODELS.items()))))
    assert [(found.name, found.format) for found in map(identify, states)] == before


def test_marks_that_do_not_exclude_each_other_are_an_error(registered, small_model):
    registered(MODELS, "again", Network(torch.nn.Identity, KeyMark(r"\.mixer\.scan\.s6\."), (), {}))
    with pytest.raises(ValueError, match="fit the marks of vm_unet under the names of this package, again under"):
        identify(small_model("vm_unet").state_dict())


def test_what_is_not_published_is_not_recognized(small_model, published_state):
    with pytest.raises(ValueError, match="names of no network of this package, beginning with fc.weight"):
        recognize({"fc.weight": torch.ones(1)})
    with pytest.raises(ValueError, match="these are the names of this package"):
        recognize(small_model("vm_unet").state_dict())
    encoder = {
        key.removeprefix("vmunet."): value
        for key, value in published_state("vm_unet", small_model("vm_unet")).items()
        if key.startswith("vmunet.layers.")
    }
    with pytest.raises(ValueError, match="these are the names of VMamba"):
        recognize({"model": encoder})


def test_an_incomplete_file_names_what_it_lacks(small_model, published_state):
    state = published_state("mhs_vm", small_model("mhs_vm"))
    del state["vmunet.final_conv.weight"]
    with pytest.raises(ValueError, match="holds weights of mhs_vm, but lacks final_conv.weight"):
        recognize(state)
