"""The mixers of PVM layers by name: those of the package, alone and in a network."""

import inspect

import pytest
import torch
from torch import nn

import mhsvm
from mhsvm.assemble import build_model, read_config
from mhsvm.defaults import DEFAULTS
from mhsvm.layers import Mamba, PVMLayer
from mhsvm.layers.mixers import MIXERS, find_mixer, list_mixers
from mhsvm.models import create_model
from mhsvm.models.registry import MODELS
from mhsvm.models.ultralight_native import changed_reason

OTHERS = ["bidirectional", "mamba2", "ss2d", "mhs", "conv"]
SMALL = MODELS["ultralight_vm_unet"].small


def test_the_package_has_these():
    assert set(list_mixers()) >= {"mamba", *OTHERS}


def test_settings_of_a_mixer_are_its_own_arguments_and_defaults():
    elsewhere = {"width", "d_state", "d_conv", "expand", "backend"}
    for name in ("mamba", *OTHERS):
        parameters = inspect.signature(MIXERS[name]).parameters
        own = {key: each.default for key, each in parameters.items() if key not in elsewhere}
        assert dict(DEFAULTS.mixer.get(name, {})) == own, name


# of UltraLight VM-UNet with 1, 2 and 4 branches, as in docs/reference/networks.md
@pytest.mark.parametrize(
    ("mixer", "expected"),
    [
        ("mamba", (136_269, 69_589, 49_457)),
        ("bidirectional", (166_429, 84_045, 56_525)),
        ("mamba2", (124_017, 63_151, 46_524)),
        ("ss2d", (222_781, 110_973, 69_669)),
        ("mhs", (138_509, 76_997, 54_293)),
        ("conv", (40_621, 39_381, 38_761)),
    ],
)
def test_parameters(mixer, expected):
    networks = [create_model("ultralight_vm_unet", mixer=mixer, branches=branches) for branches in (1, 2, 4)]
    assert tuple(sum(p.numel() for p in network.parameters()) for network in networks) == expected


@pytest.mark.parametrize("init", ["paper", "mamba"])
@pytest.mark.parametrize("mixer", OTHERS)
def test_a_network_learns_and_repeats_its_bits(mixer, init):
    torch.manual_seed(0)
    network = create_model("ultralight_vm_unet", **{**SMALL, "branches": 1}, mixer=mixer, init=init)
    image = torch.rand(2, 3, 32, 64)
    results = []
    for _ in range(2):
        network.zero_grad()
        logits = network(image)
        logits.square().sum().backward()
        results.append([logits.detach(), *(p.grad.clone() for p in network.parameters())])
    names = ["logits", *(name for name, _ in network.named_parameters())]
    for name, first, second in zip(names, *results, strict=True):
        assert torch.equal(first, second), name
        assert first.isfinite().all(), name
        assert first.abs().max() > 0, name


@pytest.mark.parametrize("mixer", OTHERS)
def test_backends_and_float64_agree(mixer):
    torch.manual_seed(0)
    exact = PVMLayer(16, 4, branches=2, mixer=find_mixer(mixer, backend="reference"), backend="reference").double()
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64)
    expected = exact(x)
    for backend in ("cpu", "chunked", "portable", "auto"):
        layer = PVMLayer(16, 4, branches=2, mixer=find_mixer(mixer, backend=backend), backend=backend)
        layer.load_state_dict(exact.state_dict())
        assert (layer(x.float()) - expected).norm() / expected.norm() < 4e-5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x.float())
    assert (half - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("mixer", ["ss2d", "mhs", "conv"])
def test_mixers_of_maps_need_two_spatial_axes(mixer):
    layer = PVMLayer(16, 4, branches=2, mixer=mixer)
    for shape in ((1, 16, 12), (1, 16, 2, 3, 2)):
        with pytest.raises(ValueError, match=r"Mixer takes maps \(b, 16, h, w\); received the spatial axes"):
            layer(torch.randn(shape))


@pytest.mark.parametrize("mixer", ["ss2d", "mhs", "conv"])
def test_mixers_of_maps_know_the_width_of_the_map(mixer):
    torch.manual_seed(0)
    layer = PVMLayer(16, 16, branches=2, mixer=mixer)
    x = torch.randn(1, 16, 4, 6)
    wide = layer(x).flatten(2)
    assert not torch.allclose(layer(x.reshape(1, 16, 6, 4)).flatten(2), wide, atol=1e-4)
    # a hook on the norm takes another path to the mixer
    layer.norm.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(layer(x).flatten(2), wide)


def test_a_config_names_a_mixer_and_its_arguments():
    settings = ("model.ultralight_vm_unet.mixer", "mhs", "mixer.mhs.patterns", "C,S", "mixer.mhs.gate", "sigmoid")
    network = build_model(read_config(None, settings))
    scan = network.encoder[3].mixer.block.scan
    assert (scan.s6.patterns, scan.attention.gate, scan.attention.threshold) == (("C", "S"), "sigmoid", 0.0)
    assert isinstance(build_model(read_config()).encoder[3].mixer, Mamba)
    network = build_model(read_config(None, ["model.ultralight_vm_unet.mixer", "conv", "mixer.conv.kernel_size", "5"]))
    assert network.encoder[3].mixer.conv.kernel_size == (5, 5)
    with pytest.raises(ValueError, match=r"the inner width of the mixer, 2 \* 6 = 12; received 5"):
        build_model(read_config(None, ["model.ultralight_vm_unet.mixer", "mamba2", "mixer.mamba2.head_width", "5"]))
    with pytest.raises(ValueError, match="kernel_size of the mixer conv is odd, which keeps the size; received 4"):
        build_model(read_config(None, ["model.ultralight_vm_unet.mixer", "conv", "mixer.conv.kernel_size", "4"]))


@pytest.mark.parametrize("mixer", OTHERS)
def test_the_c_engine_refuses_them(mixer):
    network = create_model("ultralight_vm_unet", **{**SMALL, "branches": 1}, mixer=mixer).eval()
    assert f"a PVMLayer with the mixer {MIXERS[mixer].__name__} differs" in changed_reason(network)


@pytest.mark.parametrize("mixer", OTHERS)
def test_programs_take_them(mixer):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), PVMLayer(8, 1, branches=2, mixer=mixer)).eval()
    image = torch.rand(3, 3, 4, 6)
    program = mhsvm.export_program(network, size=(4, 6), image="normalized", output="logits")
    torch.testing.assert_close(program.module()(image), network(image), rtol=1e-4, atol=1e-5)


def test_a_convolution_alone():
    torch.manual_seed(0)
    mixer = MIXERS["conv"](5)
    x = torch.randn(2, 12, 5)
    maps = x.mT.reshape(2, 5, 3, 4)
    expected = nn.functional.conv2d(maps, mixer.conv.weight, mixer.conv.bias, padding=1, groups=5)
    torch.testing.assert_close(mixer(x, size=(3, 4)), expected.flatten(2).mT)


@pytest.mark.parametrize("mixer", ["ss2d", "mhs"])
def test_the_branches_of_the_networks_are_these_mixers(mixer):
    torch.manual_seed(0)
    block = MIXERS[mixer](12)
    x = torch.randn(2, 15, 12)
    expected = block.block(x.reshape(2, 3, 5, 12)).reshape(2, 15, 12)
    torch.testing.assert_close(block(x, size=(3, 5)), expected)
    network = create_model("vm_unet" if mixer == "ss2d" else "mhs_vm", dims=(12,), depths=(1,), decoder_depths=(1,))
    branch = network.encoder[0].blocks[0].mixer
    assert {key: value.shape for key, value in branch.state_dict().items()} == {
        key: value.shape for key, value in block.block.state_dict().items()
    }
