"""Files of ONNX: compared with the network, the facts in them, and everything that is refused."""

import dataclasses
import json
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from mhsvm.assemble import exporting
from mhsvm.assemble.exporting import export_trained
from mhsvm.assemble.trained import load_trained
from mhsvm.cli import export as command
from mhsvm.cli.main import run
from mhsvm.data.augment import NORMALIZATIONS
from mhsvm.export import Export
from mhsvm.export.facts import Facts
from mhsvm.export.onnx_file import write_onnx
from mhsvm.export.onnx_model import OnnxModel
from mhsvm.models.pretrained import find_pretrained
from mhsvm.ops.fused.prepare_batch import ChannelStatistics, minmax
from mhsvm.synthetic import generate_sample

WEIGHTS = "isic2017-wu-sorted"
CPU = torch.device("cpu")


def trained(path, **options):
    return load_trained(path, device=CPU, **options)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Released weights in both forms, and with weights in 16 bits."""
    folder, model = tmp_path_factory.mktemp("released"), trained(find_pretrained(WEIGHTS).path)
    export = Export(model.model, exporting._facts(model, None))
    options = {"nodes": {}, "loops": {"scan": True}, "half": {"half": True}}
    return {
        name: write_onnx(dataclasses.replace(export, **each), folder / f"{name}.onnx")[0]
        for name, each in options.items()
    }


@pytest.fixture(scope="module")
def cases():
    """Images at the extremes and a generated one, with the probabilities of the network in float64."""
    images = np.zeros((4, 256, 256, 3), np.uint8)
    images[1, 100, 150] = 255
    images[2] = 255 * np.random.default_rng(0).integers(0, 2, images.shape[1:], np.uint8)
    images[3] = generate_sample(seed=3, index=1)[0]
    exact = exporting._exact(trained(find_pretrained(WEIGHTS).path))
    with torch.inference_mode():
        return images, exact(minmax(torch.from_numpy(images).permute(0, 3, 1, 2).double())).sigmoid().numpy()


@pytest.mark.parametrize(
    ("name", "limit", "kilobytes"), [("nodes", 2e-5, 260), ("loops", 2e-5, 240), ("half", 1e-2, 155)]
)
def test_released_weights(released, cases, name, limit, kilobytes):
    images, expected = cases
    found = OnnxModel(released[name])(images)
    assert 0 < np.abs(found - expected).max() < limit
    assert ((found >= 0.5) != (expected >= 0.5)).sum() <= (10 if name == "half" else 0)
    assert released[name].stat().st_size < 1000 * kilobytes


def test_metadata_has_the_facts_and_no_path(released):
    path = released["nodes"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert found["weights"] == WEIGHTS
    assert found["sha256 of the checkpoint"] == find_pretrained(WEIGHTS).sha256
    assert found["image"].startswith("256 x 256 pixels, RGB, 8 bits; whole frame")
    assert found["license of the data"] == "CC-0"
    assert found["use"] == "For research only; not a medical device."
    facts = OnnxModel(path).facts
    assert facts == Facts(
        WEIGHTS, found["sha256 of the checkpoint"], "ultralight_vm_unet", 1, (256, 256), "minmax", 0.5, "CC-0"
    )
    assert json.loads(found["mhsvm"])["schema"] == 1
    assert str(path.parent).encode() not in path.read_bytes()
    batch = [each.type.tensor_type.shape.dim[0].dim_param for each in (*model.graph.input, *model.graph.output)]
    assert batch == ["N", "N"]


@pytest.mark.parametrize(
    "settings",
    [
        ("model.num_classes", "3", "loss.name", "ce_dice"),
        ("data.normalization", "imagenet", "model.ultralight_vm_unet.channels", "4,4,8,8,12,16"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"scan": True}, {"half": True}])
def test_probabilities_are_those_of_the_network(workplace, make_set, make_checkpoint, settings, options):
    checkpoint = make_checkpoint(make_set(num_classes=3 if "3" in settings else 1), *settings)
    exported = export_trained(trained(checkpoint), "onnx", "net.onnx", threshold=0.25, **options)
    assert [str(file) for file in exported.files] == ["net.onnx"]
    assert 0 < exported.comparison.greatest < (1e-2 if "half" in options else 1e-5)
    facts = OnnxModel("net.onnx").facts
    assert (facts.threshold, facts.size, facts.name) == (0.25, (32, 32), "best")


def test_a_normalization_of_the_user(workplace, make_set, make_checkpoint, registered):
    statistics = ChannelStatistics(mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.3))
    registered(NORMALIZATIONS, "own", statistics)
    registered(NORMALIZATIONS, "cubes", lambda images: images**3)
    make_set()
    own, cubes = (
        make_checkpoint(workplace / "data/lesions.h5", "data.normalization", name, path=f"{name}.pt")
        for name in ("own", "cubes")
    )
    assert export_trained(trained(own), "onnx", "own.onnx").comparison.greatest < 1e-5
    with pytest.raises(ValueError, match="by minmax or by statistics of channels, not by cubes"):
        export_trained(trained(cubes), "onnx", "cubes.onnx")
    assert not list(workplace.glob("cubes.onnx"))


def test_models_and_outputs_that_are_refused(workplace, make_set, make_checkpoint, capsys):
    make_set()
    tiny = ("model.vm_unet.dims", "8,16", "model.vm_unet.depths", "1,1", "model.vm_unet.decoder_depths", "1,1")
    other = make_checkpoint(workplace / "data/lesions.h5", "model.name", "vm_unet", *tiny, path="other.pt")
    checkpoint = make_checkpoint(workplace / "data/lesions.h5")

    def error(*arguments) -> str:
        assert run(command.main, [str(each) for each in arguments]) == 2
        return capsys.readouterr().err

    to = ("--format", "onnx", "--out")
    assert "knows ultralight_vm_unet, not vm_unet; mhsvm.export_program takes" in error("--p", other, *to, "net.onnx")
    assert "name it net.onnx" in error("--p", checkpoint, *to, "net.pt")
    scan = error("--p", checkpoint, "--format", "c", "--out", "net.c", "--scan")
    assert "the format c has no operators to choose from: leave --scan out" in scan
    assert not list(workplace.glob("net*"))


def test_changed_layers_and_weights_are_refused(workplace, make_set, make_checkpoint):
    checkpoint = make_checkpoint(make_set())

    def refused(change, match, **options):
        model = trained(checkpoint)
        change(model.model)
        with pytest.raises(ValueError, match=match):
            export_trained(model, "onnx", "net.onnx", **options)
        assert not list(workplace.glob("net*"))

    refused(lambda model: model.decoder[0].register_forward_hook(print), "a PVMLayer differs or has hooks")
    refused(
        lambda model: setattr(model.encoder[3], "mixer", nn.Identity()), "a PVMLayer with the mixer Identity differs"
    )
    refused(lambda model: nn.init.constant_(model.head.bias, torch.nan), "a float cannot hold")
    refused(lambda model: nn.init.constant_(model.head.bias, 1e5), "16 bits cannot hold", half=True)


def test_without_packages(workplace, make_set, make_checkpoint, monkeypatch):
    model = trained(make_checkpoint(make_set()))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        exported = export_trained(model, "onnx", "net.onnx")
        assert exported.comparison is None
        # without the hidden folder in which it is written
        assert exported.not_run.startswith("net.onnx is run by ONNX Runtime, which is not installed: pip install ")
        with pytest.raises(ValueError, match=r"net.onnx is run by ONNX Runtime, which is not installed"):
            OnnxModel("net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"the package onnx is not installed: pip install 'mhsvm\[onnx\]'"):
        export_trained(model, "onnx", "other.onnx")
    assert not list(workplace.glob("other*"))


@pytest.fixture
def file(workplace, make_set, make_checkpoint):
    """A small model in ONNX."""
    (path,) = export_trained(trained(make_checkpoint(make_set())), "onnx", "net.onnx").files
    return path


def test_damaged_files_have_one_message(file):
    content = file.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], b"", b"no model"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"net.onnx is no model in ONNX, or is damaged"):
            OnnxModel(file)
    for place in (len(content) // 3, len(content) - 200):
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(ValueError, match=r"net.onnx does not match the checksum at its end"):
            OnnxModel(file)
    with pytest.raises(FileNotFoundError, match="there is no model"):
        OnnxModel(file.with_name("other.onnx"))


def changed(file, change):
    """The file as another program would change it, without our checksum."""
    model = onnx.load(file)
    (checksum,) = [entry for entry in model.metadata_props if entry.key == "crc32"]
    model.metadata_props.remove(checksum)
    change(model)
    onnx.save(model, file)
    return file


def test_files_of_other_programs(file):
    with pytest.raises(ValueError, match=r"has no facts of mhsvm in its metadata"):
        OnnxModel(changed_facts(file, None))


def changed_facts(file, text):
    def change(model):
        entries = {entry.key: entry for entry in model.metadata_props}
        if text is None:
            model.metadata_props.remove(entries["mhsvm"])
        else:
            entries["mhsvm"].value = text

    content = file.read_bytes()
    path = file.with_name("changed.onnx")
    path.write_bytes(content)
    return changed(path, change)


def test_facts_that_do_not_fit(file):
    facts = OnnxModel(file).facts
    assert Facts.from_json(facts.to_json(), name="a") == facts
    for text, match in (
        ("{", "are damaged"),
        ("[]", "are damaged"),
        (facts.to_json().replace('"schema": 1', '"schema": 2'), "a later version of mhsvm has written"),
        (facts.to_json().replace("0.5", "5"), "are damaged"),
        (dataclasses.replace(facts, size=(64, 64)).to_json(), "does not fit its own metadata"),
    ):
        with pytest.raises(ValueError, match=match):
            OnnxModel(changed_facts(file, text))


def test_an_old_runtime(file):
    # as an old runtime finds it
    changed(file, lambda model: setattr(model, "ir_version", 99))
    with pytest.raises(ValueError, match=r"ONNX Runtime [\d.]+ is too old for .*net.onnx: install a newer one"):
        OnnxModel(file)


def test_a_file_that_another_program_has_rewritten(file):
    model = OnnxModel(file)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    expected = model(images)
    # a file that is read and written again may keep the checksum, if nothing is changed
    onnx.save(onnx.load(file), file)
    np.testing.assert_array_equal(OnnxModel(file)(images), expected)
    changed(file, lambda model: setattr(model, "producer_version", "2"))
    np.testing.assert_array_equal(OnnxModel(file)(images, num_threads=2), expected)
