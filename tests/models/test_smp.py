"""Networks of segmentation_models.pytorch in the same trainer, tests and exports."""

import sys

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

import mhsvm
from mhsvm.assemble import build_model, load_trained
from mhsvm.assemble.networks import forget_initial_weights
from mhsvm.complexity import measure_complexity
from mhsvm.config import load_config, to_dict
from mhsvm.models import create_model, load_weights
from mhsvm.models.registry import MODELS
from mhsvm.training.checkpoint import save_checkpoint

SMALL = MODELS["smp"].small
SETTINGS = ("model.name", "smp", *(word for key, value in SMALL.items() for word in (f"model.smp.{key}", value)))


def build(**arguments):
    torch.manual_seed(0)
    return create_model("smp", **{**SMALL, **arguments})


@pytest.fixture
def foreign():
    """The small network, built by its package, with weights and statistics of its own."""
    torch.manual_seed(1)
    network = smp.Linknet(SMALL["encoder"], encoder_weights=None, classes=1)
    network.train()(torch.randn(4, 3, 64, 64))
    return network.eval()


@pytest.mark.parametrize("architecture", ["unet", "linknet", "pspnet", "segformer"])
def test_logits_have_the_size_of_the_image(architecture):
    model = build(architecture=architecture, num_classes=3, in_channels=1).eval()
    for size in ((64, 64), (32, 96)):
        assert model(torch.randn(2, 1, *size)).shape == (2, 3, *size)
    with pytest.raises(ValueError, match="multiples of 32; received 33 x 64. Pad or resize the image to 64 x 64"):
        model(torch.randn(1, 1, 33, 64))


def test_it_is_the_network_of_the_package_with_its_keys(foreign):
    model = build().eval()
    # a bare state dict, and Lightning's, as examples of the package save it
    for content in (foreign.state_dict(), {"state_dict": {f"model.{k}": v for k, v in foreign.state_dict().items()}}):
        other = build().eval()
        report = load_weights(other, content)
        assert set(report.filled) == set(foreign.state_dict())
        image = torch.randn(1, 3, 64, 64)
        assert torch.equal(other(image), foreign(image))
    with pytest.raises(ValueError, match="holds weights of smp, under the names of this package"):
        load_weights(create_model("vm_unet", **MODELS["vm_unet"].small), foreign.state_dict())
    with pytest.raises(ValueError, match="the weights do not fit this SMP:"):
        load_weights(build(architecture="unet"), model.state_dict())


def test_complexity_of_u_net_with_resnet34():
    counted = measure_complexity(create_model("smp"), size=(64, 64))
    # the number that the package's own table and torch's sum have
    assert counted.parameters == 24_436_369
    # ResNet-34 has 3.66 GMACs at 224, of which its classifier takes 0.0005
    encoder = next(part for part in counted.parts if part.name == "encoder")
    assert encoder.macs.layers == pytest.approx((3.664e9 - 0.5e6) * (64 / 224) ** 2, rel=0.01)


def test_the_loss_falls(foreign):
    torch.manual_seed(0)
    model = build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    image = torch.randn(4, 3, 64, 64)
    mask = (image.mean(dim=1, keepdim=True) > 0).float()
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(image), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_checkpoint_loads_without_the_weights_that_the_training_started_from(tmp_path):
    config = load_config(None, SETTINGS)
    model = build_model(config).eval()
    settings = to_dict(config)
    settings["model"]["smp"]["encoder_weights"] = "imagenet"
    save_checkpoint(tmp_path / "best.pt", {"model": model.state_dict(), "config": settings})
    loaded = load_trained(tmp_path / "best.pt", device=torch.device("cpu")).model
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(image), model(image))


def test_initial_weights_are_forgotten_of_each_network():
    config = load_config(None, [*SETTINGS, "model.smp.encoder_weights", "imagenet", "model.weights", "a.pt"])
    config.defrost()
    forget_initial_weights(config)
    assert (config.model.weights, config.model.smp.encoder_weights) == ("", "")
    config.model.name, config.model.weights = "vm_unet", "a.pt"
    forget_initial_weights(config)
    assert config.model.weights == ""


def test_it_is_recorded_by_torch_export(foreign):
    model = build().eval()
    load_weights(model, foreign.state_dict())
    program = mhsvm.export_program(model, size=(64, 64), image="normalized", output="logits")
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(program.module()(image), foreign(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "unett"}, "architecture is one of unet, .*; received 'unett'. Did you mean 'unet'?"),
        ({"encoder": "resnet3"}, "unknown encoder 'resnet3'. Did you mean 'resnet34'. Encoders are"),
        ({"encoder": "convnext_tiny"}, "unknown encoder 'convnext_tiny'. timm has it: take 'tu-convnext_tiny'. "),
        ({"encoder": "timm-resnest14d"}, "timm has it: take 'tu-resnest14d'. "),
        ({"encoder": "tu-convnext_tny"}, "timm has no model 'convnext_tny'.* Did you mean 'convnext_tiny'"),
        ({"encoder": "tu-vit_base_patch16_224"}, "takes images of a fixed size only"),
        ({"encoder": "mit_b0", "architecture": "unetplusplus"}, "builds no unetplusplus with the encoder mit_b0: "),
        (
            {"encoder": "resnet34", "encoder_weights": "coco"},
            "encoder_weights of resnet34 is one of imagenet, or empty",
        ),
        ({"encoder_weights": "coco"}, "of an encoder of timm is imagenet or empty; received 'coco'"),
    ],
)
def test_bad_requests_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


@pytest.fixture
def cache(monkeypatch):
    """Files in the cache of Hugging Face by repository, and no way to a server."""
    import huggingface_hub

    files = {}
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repository, name, revision: files.get((repository, name))
    )
    return files


def test_weights_that_are_not_here_are_not_downloaded(cache):
    message = "not in the cache .* not downloaded here: hf download {} --revision"
    with pytest.raises(ValueError, match=message.format("smp-hub/resnet34.imagenet config.json model.safetensors")):
        build(encoder="resnet34", encoder_weights="imagenet")
    with pytest.raises(ValueError, match=message.format("timm/test_efficientnet.r160_in1k model.safetensors")):
        build(encoder_weights="imagenet")


def test_weights_of_timm_are_read_from_the_cache(cache, tmp_path, foreign):
    from safetensors.torch import save_file

    trained = {key.removeprefix("model."): value for key, value in foreign.encoder.state_dict().items()}
    save_file(trained, tmp_path / "model.safetensors")
    cache["timm/test_efficientnet.r160_in1k", "model.safetensors"] = str(tmp_path / "model.safetensors")
    model = build(encoder_weights="imagenet")
    for key, value in foreign.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[key], value), key


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ValueError, match=r"extra smp: pip install 'mhsvm\[smp\]'"):
        build()


def test_a_training_in_two_parts_is_one_training(workplace, make_set):
    path = make_set(num=10, side=32)
    settings = dict(zip(SETTINGS[::2], SETTINGS[1::2], strict=True))
    settings |= {"data.set": str(path), "data.split": "ratio-60-20-20-1", "train.epochs": 2, "run.device": "cpu"}
    whole = mhsvm.train(settings, folder="whole")
    mhsvm.train({**settings, "train.epochs": 1}, folder="parts")
    parts = mhsvm.train({"train.epochs": 2}, resume="parts")
    states = [torch.load(f"{run}/checkpoints/last.pt", weights_only=True)["model"] for run in ("whole", "parts")]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    assert whole.history == parts.history
    result = mhsvm.evaluate(parts, path)
    assert 0 <= result.metrics["dsc"] <= 1
    mask, probability = mhsvm.load_predictor("parts/checkpoints/best.pt")(np.zeros((40, 50, 3), np.uint8))
    assert mask.shape == probability.shape == (40, 50)
