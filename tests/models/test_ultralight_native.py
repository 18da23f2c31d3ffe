"""The C engine computes the logits of UltraLight VM-UNet as float64 does, for any of its arguments, and only those."""

import numpy as np
import pytest
import torch
from torch import nn

from mhsvm.layers.mixers import MIXERS
from mhsvm.models import create_model, ultralight_native
from mhsvm.models.pretrained import list_pretrained
from mhsvm.models.ultralight_native import ULTRALIGHT_VM_UNET, unsupported_reason
from mhsvm.models.ultralight_weights import pack_weights
from mhsvm.native import library
from mhsvm.native.network import NativeNetwork

pytestmark = pytest.mark.skipif(library.unavailable_reason() is not None, reason="needs a C compiler")

# widths that are no multiples of a vector, states of any number, maps of a single cell
NETWORKS = (
    ({}, (64, 96)),
    ({"num_classes": 3, "branches": 2, "d_state": 7, "bridge": False}, (32, 64)),
    ({"channels": (4, 12, 20, 36, 44, 60), "split_att": "conv"}, (64, 32)),
    ({"channels": (4, 4, 8, 8, 12, 10), "branches": 2, "d_state": 4, "d_conv": 3, "expand": 3}, (32, 32)),
    ({"channels": (12, 20, 72, 80, 128, 160), "branches": 1, "in_channels": 4, "d_state": 24}, (64, 64)),
    ({"branches": 8, "expand": 1, "d_state": 33, "d_conv": 2}, (32, 128)),
)


def spread_model(**arguments) -> nn.Module:
    """A network whose weights and biases all have an effect."""
    torch.manual_seed(0)
    model = create_model("ultralight_vm_unet", init="mamba", **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def exact_logits(model: nn.Module, images: torch.Tensor, **arguments) -> torch.Tensor:
    exact = create_model("ultralight_vm_unet", backend="reference", **arguments).eval()
    exact.load_state_dict(model.state_dict())
    with torch.inference_mode():
        return exact.double()(images.double())


def chosen(model, image) -> str:
    return ULTRALIGHT_VM_UNET.choose("auto", image, model).backend


@pytest.mark.parametrize(("arguments", "size"), NETWORKS)
def test_logits_are_those_of_float64(arguments, size):
    model = spread_model(**arguments)
    images = 255 * torch.rand(2, arguments.get("in_channels", 3), *size)
    with torch.inference_mode():
        assert chosen(model, images) == "native"
        logits = model(images)
    assert (logits - exact_logits(model, images, **arguments)).abs().max() < 3e-5


def extreme_images() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    white = torch.zeros(1, 3, 64, 64)
    white[..., 31, 17] = 255
    return {
        "constant": torch.full((1, 3, 64, 64), 255.0),
        "one white pixel": white,
        "noise": 255.0 * torch.randint(2, (1, 3, 64, 64), generator=generator),
    }


@pytest.mark.parametrize("name", list_pretrained())
@pytest.mark.parametrize("image", extreme_images())
def test_released_weights_on_extreme_images(name, image):
    model = create_model("ultralight_vm_unet", pretrained=name).eval()
    with torch.inference_mode():
        found = model(extreme_images()[image]).sigmoid()
    exact = exact_logits(model, extreme_images()[image]).sigmoid()
    assert (found - exact).abs().max() < 2e-5


@pytest.mark.parametrize("name", list_pretrained())
@pytest.mark.parametrize(("place", "color"), [((0, 0), (0, 255, 0)), ((2, 0), (255, 255, 255)), ((1, 0), (0, 0, 255))])
def test_a_pixel_where_the_sums_of_a_norm_begin(name, place, color):
    image = torch.zeros(1, 3, 256, 256)
    y, x = place
    image[:, :, y, x] = torch.tensor(color, dtype=torch.float32)
    model = create_model("ultralight_vm_unet", pretrained=name).eval()
    with torch.inference_mode():
        found = model(image).sigmoid()
    assert (found - exact_logits(model, image).sigmoid()).abs().max() < 2e-5


def change_padding(model):
    model.encoder[0] = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (change_padding, "Conv2d"),
        (lambda model: model.encoder.__setitem__(0, nn.Conv2d(3, 8, 3, padding=2, dilation=2)), "Conv2d"),
        (lambda model: setattr(model, "head", nn.Conv2d(8, 1, 3, padding=1)), "Conv2d"),
        (lambda model: setattr(model, "head", nn.Conv2d(8, 1, 1, bias=False)), "Conv2d"),
        (lambda model: setattr(model.encoder[3].mixer, "in_proj", nn.Linear(6, 24)), "Linear"),
        (lambda model: setattr(model.encoder_norms[0], "num_groups", 2), "GroupNormGELU"),
    ],
)
def test_layers_of_the_same_class_with_other_arguments_are_computed_as_they_are(change, changed):
    model, images = spread_model(), 255 * torch.rand(1, 3, 32, 32)
    change(model)
    with torch.inference_mode():
        assert f"a {changed} differs" in unsupported_reason(images, model)
        torch.testing.assert_close(model(images), model.by_layers(images))


def test_a_head_of_more_classes_is_one_of_the_published_network():
    torch.manual_seed(0)
    model, images = spread_model(), 255 * torch.rand(1, 3, 32, 32)
    model.head = nn.Conv2d(8, 3, 1)
    state = torch.get_rng_state()
    with torch.inference_mode():
        assert chosen(model, images) == "native"
        assert torch.equal(torch.get_rng_state(), state)
        assert (model(images) - model.by_layers(images)).abs().max() < 1e-4


def test_states_that_decay_at_once():
    model = spread_model()
    with torch.no_grad():
        for layer in (*model.encoder[3:], *model.decoder[:3]):
            layer.mixer.dt_proj.bias.fill_(50)
    images = 255 * torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        logits = model(images)
    assert (logits - exact_logits(model, images)).abs().max() < 3e-5


def test_not_a_number_is_not_hidden():
    model = spread_model()
    images = torch.rand(1, 3, 32, 32)
    for parameter in (model.encoder[0].bias, model.encoder[4].mixer.dt_proj.bias, model.bridge.spatial.bias):
        kept = parameter.detach().clone()
        with torch.inference_mode():
            parameter.fill_(torch.nan)
            assert model(images).isnan().any()
            parameter.copy_(kept)
            assert not model(images).isnan().any()


def test_threads_change_no_bit():
    model = spread_model()
    images = 255 * torch.rand(5, 3, 64, 64)
    network = ultralight_native._network(model)
    channels_last = images.permute(0, 2, 3, 1).contiguous().numpy()
    expected = network(channels_last)
    for num_threads in (2, 8):
        np.testing.assert_array_equal(network(channels_last, num_threads=num_threads), expected)
    np.testing.assert_array_equal(network(channels_last[3:4])[0], expected[3])


def test_an_empty_batch_has_empty_logits():
    model, images = spread_model(num_classes=3), torch.empty(0, 3, 32, 64)
    with torch.inference_mode():
        assert chosen(model, images) == "native"
        assert model(images).shape == (0, 3, 32, 64)


def test_changed_weights_are_used():
    model = spread_model()
    images = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        before = model(images)
        model.head.bias.data += 1
        torch.testing.assert_close(model(images), before + 1)


def test_calls_that_it_leaves_to_others():
    model, image = spread_model(), torch.rand(1, 3, 32, 32)
    assert chosen(model, image) == "reference"
    assert model(image).requires_grad
    with torch.inference_mode():
        assert chosen(model, image) == "native"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert chosen(model, image) == "reference"
        assert "float32" in unsupported_reason(image.double(), model)
        assert "model.eval()" in unsupported_reason(image, model.train())
        model.eval()
        model.decoder_norms[0].eps = 1e-3
        assert "GroupNormGELU differs" in unsupported_reason(image, model)


@pytest.mark.parametrize("layer", ["encoder.0", "encoder.3.mixer.x_proj", "bridge.gates.2", "decoder.1.norm"])
def test_hooks_run(layer):
    model, calls = spread_model(), []
    model.get_submodule(layer).register_forward_hook(lambda *_: calls.append(layer))
    with torch.inference_mode():
        model(torch.rand(1, 3, 32, 32))
    assert layer in calls


def test_another_mixer_is_computed_by_layers(registered):
    registered(MIXERS, "nothing", lambda width: nn.Identity())
    model = create_model("ultralight_vm_unet", mixer="nothing").eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert chosen(model, image) == "reference"
        assert model(image).shape == (1, 1, 32, 32)


def test_wrong_arguments_are_refused():
    model = spread_model()
    weights, arguments = pack_weights(model), ultralight_native.network_arguments(model)
    network = NativeNetwork(weights, **arguments)
    with pytest.raises(ValueError, match=r"the weights are float32 \(\d+,\); received float32"):
        NativeNetwork(weights[:-1], **arguments)
    with pytest.raises(ValueError, match="d_state is 1 to 64"):
        NativeNetwork(weights, **{**arguments, "d_state": 65})
    with pytest.raises(ValueError, match="images of 32 x 48: height and width are multiples of 32"):
        network(np.zeros((1, 32, 48, 3), np.float32))
    with pytest.raises(ValueError, match=r"images are float32 \(b, h, w, 3\); received uint8"):
        network(np.zeros((1, 32, 32, 3), np.uint8))
