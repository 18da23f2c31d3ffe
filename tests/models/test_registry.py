import pytest
from torch import nn

from mhsvm.models import create_model, list_models, register_model
from mhsvm.models.registry import MODELS


@pytest.mark.parametrize("name", list_models())
def test_every_network_declares_a_small_one(name):
    model = create_model(name, **MODELS[name].small)
    assert model.stride >= 1
    assert sum(parameter.numel() for parameter in model.parameters()) < 100_000


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("unet", {}, "unknown model 'unet'; known: "),
        (
            "vm_unet",
            {"depth": (1,)},
            "model 'vm_unet' has no argument 'depth'. Did you mean 'depths'\\? It takes: dims, ",
        ),
        ("vm_unet", {"gate": "relu"}, "model 'vm_unet' has no argument 'gate'"),
        ("mhs_vm", {"gate_treshold": 0.1}, "Did you mean 'gate_threshold'"),
        ("ultralight_vm_unet", {"num_classes": 0}, "num_classes is at least 1; received 0"),
        ("ultralight_vm_unet", {"in_channels": 0}, "in_channels is at least 1; received 0"),
    ],
)
def test_bad_requests_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **arguments)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="model 'mhs_vm' is registered already, as mhsvm.models.mhs_vm.MHSVM; "):
        register_model("mhs_vm")(nn.Identity)
