"""Counts that the papers print, the same counts made another way, and the formula of the scan."""

import functools

import pytest
import torch
from torch import nn

from mhsvm.complexity import measure_complexity
from mhsvm.layers import BidirectionalMamba, Mamba, Mamba2, MultiHeadScan, PVMLayer, RouteS6
from mhsvm.layers.mixers import find_mixer, list_mixers
from mhsvm.models import create_model
from tests.fixtures.networks import OWN_NETWORKS

TINY_UNET = {"dims": (8, 16), "depths": (1, 1), "decoder_depths": (1, 1), "d_state": 4}


def tiny(name):
    return create_model(name, backend="cpu", **(TINY_UNET if name in ("mhs_vm", "vm_unet") else {}))


@pytest.mark.parametrize(("branches", "parameters"), [(4, 49_457), (2, 69_589), (1, 136_269)])
def test_ultralight_has_the_papers_numbers(branches, parameters):
    counted = measure_complexity(create_model("ultralight_vm_unet", branches=branches, backend="cpu"))
    assert counted.parameters == parameters
    # theirs: 2-D convolutions 0.0577 and the output layers of the PVM layers 0.0019
    assert f"{counted.macs.layers / 1e9:.3f}" == "0.060"
    if branches == 4:
        assert f"{counted.macs.without_scan / 1e9:.3f}" == "0.066"


def test_layers_are_those_that_hooks_see():
    model = create_model("ultralight_vm_unet", backend="cpu")
    inside = {layer for mixer in model.modules() if isinstance(mixer, Mamba) for layer in mixer.modules()}
    seen = {}

    def count(module, inputs, output):
        if module in inside:
            return
        kind = "2-D convolutions" if isinstance(module, nn.Conv2d) else "others"
        seen[kind] = seen.get(kind, 0) + output.numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    counted = measure_complexity(model).macs.layers
    assert f"{seen['2-D convolutions'] / 1e9:.4f}" == "0.0577"
    assert f"{seen['others'] / 1e9:.4f}" == "0.0019"
    assert counted == sum(seen.values())


@pytest.mark.parametrize(
    ("name", "tensor_bytes"),
    [("mhs_vm", 97_127_136), ("vm_unet", 138_808_288)],
)
def test_memory_is_that_of_networks_without_hooks(name, tensor_bytes):
    assert measure_complexity(create_model(name, backend="cpu")).tensor_bytes == tensor_bytes


@functools.cache
def tiny_counted(name):
    """A network and its complexity for an image of 64 x 64, shared by tests."""
    model = tiny(name)
    return model, measure_complexity(model, size=(64, 64))


@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_parts_add_up(name):
    model, counted = tiny_counted(name)
    assert counted.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert sum(part.parameters for part in counted.parts) == counted.parameters
    for kind in ("layers", "mixers", "scan"):
        total = getattr(counted.macs, kind)
        assert total > 0 or (kind != "layers" and name in ("ege_unet", "malunet"))
        assert sum(getattr(part.macs, kind) for part in counted.parts) == total
    assert counted.macs.total == counted.macs.without_scan + counted.macs.scan


@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_counts_are_those_of_an_image_and_grow_with_its_area(name):
    model, one = tiny_counted(name)
    several = measure_complexity(model, size=(64, 64), batch=3)
    if name == "ege_unet":
        # its attention computes weights once for all images of a batch
        assert 0.9 * one.macs.total < several.macs.total < one.macs.total
    else:
        assert (one.macs, one.activations, one.parts) == (several.macs, several.activations, several.parts)
    assert several.tensor_bytes > 2 * one.tensor_bytes - weights_bytes(model)
    larger = measure_complexity(model, size=(64, 128))
    assert larger.macs.scan == 2 * one.macs.scan
    assert larger.macs.total == pytest.approx(2 * one.macs.total, rel=0.01)


def weights_bytes(model):
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


class Sequences(nn.Module):
    """A sequence mixer (b, l, c) where images come in."""

    def __init__(self, mixer):
        super().__init__()
        self.mixer = mixer

    def forward(self, x):
        return self.mixer(x.flatten(2).mT)


def test_a_mamba_block():
    width, inner, states, cells = 8, 16, 4, 6 * 10
    counted = measure_complexity(
        Sequences(Mamba(width, d_state=states, backend="cpu")), in_channels=width, size=(6, 10)
    )
    assert counted.macs.layers == 0
    # of D u and of the gate two operations each, beside nine of each state
    assert counted.macs.scan == cells * inner * (9 * states + 2 + 2) // 2
    projections = width * 2 * inner + inner * (1 + 2 * states) + 1 * inner + inner * width
    assert counted.macs.mixers == cells * (projections + inner * 4)
    assert counted.activations == cells * (2 * inner + inner + (1 + 2 * states) + inner + inner + width)
    assert [part.name for part in counted.parts] == ["mixer"]


def test_a_bidirectional_block():
    width, inner, states, cells = 8, 16, 4, 6 * 10
    block = BidirectionalMamba(width, d_state=states, d_conv=3, backend="cpu")
    counted = measure_complexity(Sequences(block), in_channels=width, size=(6, 10))
    assert counted.macs.layers == 0
    # two scans, and one gate after their sum
    assert counted.macs.scan == cells * inner * (2 * (9 * states + 2) + 2) // 2
    direction = inner * 3 + inner * (1 + 2 * states) + 1 * inner
    assert counted.macs.mixers == cells * (width * 2 * inner + 2 * direction + inner * width)
    assert counted.activations == cells * (2 * inner + 2 * (3 * inner + 1 + 2 * states) + width)


def test_a_mamba2_block():
    width, inner, states, heads, cells = 8, 16, 4, 8, 6 * 10
    block = Mamba2(width, head_width=2, d_state=states, d_conv=3, backend="cpu")
    counted = measure_complexity(Sequences(block), in_channels=width, size=(6, 10))
    assert counted.macs.layers == 0
    assert counted.macs.scan == cells * inner * (9 * states + 2 + 2) // 2
    projected = 2 * inner + 2 * states + heads
    assert counted.macs.mixers == cells * (width * projected + 3 * (inner + 2 * states) + inner * width)
    assert counted.activations == cells * (projected + (inner + 2 * states) + inner + width)


@pytest.mark.parametrize("name", list_mixers())
def test_every_mixer_inside_a_layer(name):
    """The scan is counted, and torch's layers are counted once."""
    c, cells, v = 8, 6 * 10, 4
    layer = PVMLayer(c, 5, branches=2, mixer=find_mixer(name, d_state=3, backend="cpu"), backend="cpu")
    counted = measure_complexity(layer, in_channels=c, size=(6, 10))
    d, n = 2 * v, 3
    scans = {
        "mamba": 2 * d * (9 * n + 4),
        "mamba2": 2 * d * (9 * n + 4),
        "bidirectional": 2 * d * (2 * (9 * n + 2) + 2),
        "ss2d": 2 * d * 4 * (9 * n + 2),
        # four heads of one channel
        "mhs": 2 * v * 4 * (9 * n + 2),
        "conv": 0,
    }
    layers = {
        "ss2d": 2 * (v * 2 * d + 9 * d + d * v),
        "mhs": 2 * (v * 2 * v + 9 * v + 2 * v * v),
        "conv": 2 * 9 * v,
    }
    assert counted.macs.scan == cells * scans[name] // 2
    assert counted.macs.layers == cells * (c * 5 + layers.get(name, 0))
    assert (counted.macs.mixers > 0) == (name != "conv")


def test_a_route_scan():
    heads, channels, states, cells, routes = 2, 6, 4, 8 * 8, 4
    layer = MultiHeadScan(heads * channels, patterns=("C", "S"), d_state=states, project=False, backend="cpu")
    counted = measure_complexity(layer, in_channels=heads * channels, size=(8, 8))
    assert layer.s6.dt_proj.shape[-1] == 1
    # there is no gate z; the step size is projected from one number
    assert counted.macs.scan == heads * routes * cells * channels * (9 * states + 2) // 2
    assert counted.macs.mixers == heads * routes * cells * channels * (1 + 2 * states + 1)
    assert counted.macs.layers == cells * (heads * channels) ** 2


def test_activations_and_memory_of_two_layers():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    counted = measure_complexity(net, size=(10, 12))
    pixels = 10 * 12
    assert counted.activations == pixels * (4 + 2)
    assert counted.macs.layers == pixels * (3 * 4 * 9 + 4 * 2)
    # at most alive: the image, which the caller holds, and what goes in and out of the activation function
    assert counted.tensor_bytes == 4 * (pixels * (3 + 4 + 4) + counted.parameters)


def test_the_file_is_as_large_as_it_is_written(tmp_path):
    model, counted = tiny_counted("ultralight_vm_unet")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    # the file contains its own name
    assert counted.file_bytes == pytest.approx((tmp_path / "weights.pt").stat().st_size, abs=2000)


def test_another_backend_is_refused():
    model = create_model("ultralight_vm_unet", backend="chunked")
    with pytest.raises(ValueError, match='its scans on one backend; received chunked. Build it with backend="cpu"'):
        measure_complexity(model)
    with pytest.raises(ValueError, match="height and width must be multiples of 32; received 100 x 100"):
        measure_complexity(create_model("ultralight_vm_unet", backend="cpu"), size=(100, 100))


def test_a_network_of_others_is_counted():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), PVMLayer(8, 4, mixer=lambda width: nn.Linear(width, width)))
    counted = measure_complexity(net, size=(8, 8))
    assert counted.macs.total == counted.macs.layers == 64 * (3 * 8 * 9 + 4 * 2 * 2 + 8 * 4)


def test_the_weights_are_left_as_they_were():
    model = create_model("mhs_vm", backend="cpu", **TINY_UNET)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure_complexity(model, size=(32, 32))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # routes that were made for the count serve a real scan
    assert isinstance(model.encoder[0].blocks[0].mixer.scan.s6, RouteS6)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 1, 32, 32)
