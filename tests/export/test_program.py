"""Networks recorded by torch.export: right numbers for any batch, plain operations only, and clear refusals."""

import io
from pathlib import Path

import pytest
import torch
from torch import nn

import mhsvm
from mhsvm import api
from mhsvm.data.augment import NORMALIZATIONS
from mhsvm.models.registry import MODELS
from mhsvm.ops.fused.prepare_batch import minmax
from tests.fixtures.networks import OWN_NETWORKS

SHORT = {"depths": (1, 1), "decoder_depths": (1, 1)}
# Arguments of each network, and of its record.
RECORDS = {
    "ultralight_vm_unet": ({"num_classes": 1}, {"normalization": "minmax"}),
    "vm_unet": ({**SHORT, "num_classes": 3}, {"normalization": "imagenet", "image": "float32"}),
    "malunet": ({"num_classes": 1}, {"normalization": "minmax"}),
    "ege_unet": ({"num_classes": 2}, {"normalization": "minmax", "output": "logits"}),
    # the default gate magnifies the rounding errors of any backend
    "mhs_vm": ({**SHORT, "in_channels": 1, "gate": "sigmoid"}, {"image": "normalized", "output": "logits"}),
}


def build(name, **arguments):
    torch.manual_seed(0)
    return mhsvm.create_model(name, **{**MODELS[name].small, **arguments}).eval()


def images(kind, batch, size):
    generator = torch.Generator().manual_seed(batch)
    rgb = torch.randint(0, 256, (batch, *size, 3), generator=generator, dtype=torch.uint8)
    if kind == "normalized":
        return rgb[..., :1].permute(0, 3, 1, 2).float()
    return rgb if kind == "uint8" else rgb.permute(0, 3, 1, 2).float()


@torch.no_grad()
def exactly(model, image, *, normalization=None, output="probability"):
    """What a program should compute, by the network in float64."""
    x = image.double() if image.dtype != torch.uint8 else image.permute(0, 3, 1, 2).double()
    if normalization is not None:
        x = NORMALIZATIONS[normalization](x)
    arguments = {name: value for name, value in vars(model).items() if name == "in_channels"}
    assert arguments["in_channels"] == x.shape[1]
    logits = model.double()(x)
    model.float()
    if output == "logits":
        return logits
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def operators(program):
    return {node.target for node in program.graph.nodes if node.op == "call_function"}


# torch 2.6 warns of the constants that it records
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")
@pytest.mark.filterwarnings("ignore:Node .*lifted_tensor:UserWarning")
@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_every_network_for_any_number_of_images(name):
    arguments, options = RECORDS[name]
    size = (8, 16) if name in ("mhs_vm", "vm_unet") else (32, 32)
    model = build(name, **arguments, backend="reference")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    # whatever backend the network names, and with gradients on
    program = mhsvm.export_program(model.train(), size=size, **options)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert {getattr(target, "namespace", "aten") for target in operators(program)} == {"aten"}
    assert not [target for target in operators(program) if isinstance(target, torch._ops.HigherOrderOperator)]
    run = program.module()
    model.eval()
    for batch in (1, 2, 3, 4):
        image = images(options.get("image", "uint8"), batch, size)
        found = run(image)
        shown = {key: value for key, value in options.items() if key != "image"}
        expected = exactly(model, image, **shown)
        assert found.dtype == torch.float32
        assert found.shape == (batch, arguments.get("num_classes", 1), *size)
        assert not found.requires_grad
        # logits near 0 are differences of numbers like the greatest one
        bound = max(5e-5, 1e-5 * float(expected.abs().max())) if "output" in options else 1e-5
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=bound)


def test_a_saved_program_needs_no_package_and_names_no_folder():
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1))
    program = mhsvm.export_program(layers, size=(4, 6), normalization="minmax", batch=2)
    file = io.BytesIO()
    torch.export.save(program, file)
    assert str(Path(mhsvm.__file__).parent).encode() not in file.getvalue()
    loaded = torch.export.load(io.BytesIO(file.getvalue()))
    (image,) = (node for node in loaded.graph.nodes if node.name == "image")
    assert image.meta["val"].shape == (2, 4, 6, 3)
    assert image.meta["val"].dtype == torch.uint8
    rgb = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = layers(minmax(rgb.permute(0, 3, 1, 2).float())).sigmoid()
    torch.testing.assert_close(loaded.module()(rgb), expected)


def test_a_checkpoint_brings_its_size_and_its_normalization(monkeypatch):
    received = []
    monkeypatch.setattr(api, "record_program", lambda network, **options: received.append((network, options)))
    name = "isic2017-wu-sorted"
    mhsvm.export_program(name)
    mhsvm.export_program(mhsvm.load_predictor(name), size=64, normalization="imagenet", batch=1)
    (network, options), (_, changed) = received
    assert isinstance(network, MODELS["ultralight_vm_unet"].create)
    assert options["size"] == (256, 256)
    assert options["normalize"] is minmax
    assert options["batch"] is None
    assert changed["size"] == (64, 64)
    assert changed["normalize"] is NORMALIZATIONS["imagenet"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 40}, "height and width must be multiples of 32; received 40 x 40"),
        ({"size": 32, "normalization": None}, "a bare network does not know its normalization: give `normalization`"),
        ({"size": None}, "a bare network does not know the size of its images: give `size`, such as 256"),
        ({"size": 0}, "at least 1 pixel; got 0"),
        ({"size": 32, "image": "uint16"}, "image is one of uint8, float32, normalized; received 'uint16'"),
        ({"size": 32, "output": "mask"}, "output is one of probability, logits; received 'mask'"),
        ({"size": 32, "batch": 0}, "batch is at least 1, or None for any number of images; received 0"),
        ({"size": 32, "normalization": "minmx"}, "Did you mean 'minmax'"),
    ],
)
def test_wrong_choices_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mhsvm.export_program(build("ultralight_vm_unet"), **{"normalization": "minmax", **options})


def test_a_network_of_one_channel_takes_no_rgb_images():
    with pytest.raises(ValueError, match="a network of 1 channels takes no RGB images: record it with image='norm"):
        mhsvm.export_program(build("ultralight_vm_unet", in_channels=1), size=32, normalization="minmax")


def test_hooks_are_refused():
    model = build("ultralight_vm_unet")
    model.encoder[3].register_forward_hook(lambda *arguments: None)
    with pytest.raises(ValueError, match=r"a program holds no hooks, and encoder\.3 \(PVMLayer\) has one: remove it"):
        mhsvm.export_program(model, size=32, normalization="minmax")


class Own(nn.Module):
    """A layer from outside, a function of maps."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Counter:
    """Adds how often it was called."""

    calls = 0

    def __call__(self, x):
        self.calls += 1
        return 0 * x + self.calls


@torch.library.custom_op("tests_program::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@double.register_fake
def _(x):
    return torch.empty_like(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: double(x), "would need operators that other runtimes lack: tests_program.double.default"),
        (
            lambda x: x + torch.rand_like(x),
            "the same result in every call, and a layer uses aten.rand_like.default",
        ),
        (Counter(), "computes other values than the network: a layer keeps values from call to call"),
        (lambda x: x if x.mean() > 0 else -x, "torch.export cannot record this network: "),
        (lambda x: x * len(x), "torch.export cannot record this network: .*number of their inputs"),
    ],
)
def test_layers_that_cannot_be_recorded(function, message):
    with pytest.raises(ValueError, match=message):
        mhsvm.export_program(nn.Sequential(nn.Conv2d(3, 1, 1), Own(function)), size=4, image="normalized")
