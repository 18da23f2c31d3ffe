"""A model as one page: it holds everything, can send nothing, and computes the network's probabilities."""

import json
import re
import zlib
from base64 import b64decode, b64encode
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import torch
from PIL import Image

from mhsvm.assemble.exporting import export_trained
from mhsvm.assemble.trained import load_trained
from mhsvm.cli import export as command
from mhsvm.cli.main import run
from mhsvm.export import FORMATS, Export, Facts, node
from mhsvm.export.facts import INTENDED_USE, RESIZE_RULE
from mhsvm.export.html_page import FOLDER, write_html
from mhsvm.export.node import open_page
from mhsvm.models.ultralight_weights import pack_weights
from mhsvm.native.wasm import WASM
from mhsvm.ops.fused.prepare_batch import minmax
from mhsvm.synthetic import generate_sample
from mhsvm.text_file import read_text
from tests.fixtures.node import needs_node

WEIGHTS = "isic2017-wu-sorted"
OTHER = "isic2017-wu-shuffled-42"


def trained(path):
    return load_trained(path, device=torch.device("cpu"))


def small(name):
    """Released weights for images of 32 x 64, which are quicker."""
    return replace(trained(name), data={"size": [32, 64]})


def elements(html: str) -> list[tuple[str, str]]:
    """Attributes and content of all script elements."""
    found = re.findall(r"<script([^>]*)>(.*?)</script>", html, re.S)
    assert len(found) == html.count("<script") == html.count("</script")
    return found


def data_of(html: str) -> str:
    (data,) = [content for attributes, content in elements(html) if 'id="data"' in attributes]
    return data


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The page of released weights, and of the same in 16 bits with others beside them."""
    folder = tmp_path_factory.mktemp("pages")
    one = export_trained(trained(WEIGHTS), "html", folder / "a.html")
    two = export_trained(small(WEIGHTS), "html", folder / "b.html", half=True, beside=small(OTHER))
    assert sorted(folder.iterdir()) == [folder / "a.html", folder / "b.html"]
    return one, two


def test_the_page_holds_the_model_and_its_facts(released):
    model = trained(WEIGHTS)
    (file,) = released[0].files
    data = json.loads(data_of(read_text(file)))
    assert data["use"] == INTENDED_USE == "For research only; not a medical device."
    assert data["resize"] == RESIZE_RULE
    assert zlib.decompress(b64decode(data["wasm"])) == WASM.read_bytes()
    (found,) = data["models"]
    places = np.frombuffer(zlib.decompress(b64decode(found.pop("weights"))), np.uint8).reshape(4, -1)
    assert places.T.tobytes() == pack_weights(model.model).astype("<f4").tobytes()
    lines = found.pop("lines")
    assert lines["precision"] == "32 bits"
    assert lines["decision"] == "lesion where the probability is at least 0.5"
    assert found == {
        "name": WEIGHTS,
        "sha256": model.checksum,
        "size": [256, 256],
        "classes": 1,
        "threshold": 0.5,
        "normalization": "minmax",
        "license": "CC-0",
        "half": False,
        "network": {
            **{"in_channels": 3, "num_classes": 1, "channels": [8, 16, 24, 32, 48, 64], "branches": 4},
            **{"d_state": 16, "d_conv": 4, "expand": 2, "bridge": True},
        },
    }


def test_the_page_is_small_and_has_no_path(released):
    one, two = released
    html = read_text(one.files[0])
    assert len(html.encode()) <= 400_000
    # two rounded models are as large as one
    assert two.files[0].stat().st_size <= 400_000
    assert len(html.encode()) - _weight_characters(one) + _weight_characters(two) / 2 <= 220_000
    for path in (one.files[0].parent, FOLDER.parents[1], "/home/", "/tmp/"):
        assert str(path) not in html


def _weight_characters(exported) -> int:
    models = json.loads(data_of(read_text(exported.files[0])))["models"]
    return sum(len(model["weights"]) for model in models)


def test_the_page_can_run_its_own_scripts_only_and_send_nothing(released):
    html = read_text(released[0].files[0])
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert not {"connect-src", "frame-src", "object-src", "font-src"} & set(rules)
    assert rules["worker-src"] == "blob:"
    run = [content for attributes, content in elements(html) if "type=" not in attributes]
    digests = [f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" for content in run]
    assert sorted(rules["script-src"].split()) == sorted(["'wasm-unsafe-eval'", *digests])
    assert html.index("Content-Security-Policy") < html.index("<style")
    outside = r"https?://|\bsrc=|\bimport\(|<link|<iframe|\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon"
    assert re.findall(outside, html) == []


@needs_node
def test_the_file_itself_is_compared(released):
    one, two = released
    assert one.not_run == ""
    assert one.comparison.num_images == 10
    assert 0 < one.comparison.greatest < 2e-5
    assert one.comparison.num_different == 0
    assert one.beside == []
    (beside,) = two.beside
    for found in (two.comparison, beside):
        assert 1e-4 < found.greatest < 1e-2
        assert found.num_different < 100
    assert two.comparison.greatest != beside.greatest


@needs_node
@pytest.mark.parametrize(
    "settings",
    [
        ("model.ultralight_vm_unet.channels", "4,4,8,8,12,16", "model.ultralight_vm_unet.branches", "2"),
        ("model.num_classes", "3", "loss.name", "ce_dice", "model.ultralight_vm_unet.bridge", "false"),
    ],
)
def test_probabilities_are_those_of_the_network(workplace, make_set, make_checkpoint, settings):
    checkpoint = make_checkpoint(make_set(num_classes=3 if "3" in settings else 1), *settings)
    exported = export_trained(trained(checkpoint), "html", "net.html", beside=small(WEIGHTS))
    assert 0 < exported.comparison.greatest < 1e-5
    assert exported.comparison.num_pixels == 10 * 32 * 32
    assert 0 < exported.beside[0].greatest < 2e-5
    assert exported.beside[0].num_pixels == 10 * 32 * 64


@needs_node
def test_names_cannot_leave_their_element(workplace):
    name = "<!--<script> @@data@@ &quot;'\"\\u003c</SCRIPT><img onerror=alert(1)>\u2028</script ><b>"
    export = Export(trained(WEIGHTS).model, Facts(name, "</script>", "ultralight_vm_unet", 1, (32, 64), "minmax", 0.5))
    files = write_html(export, workplace / "a.html")
    html = read_text("a.html")
    data = json.loads(data_of(html))
    assert data["models"][0]["name"] == name.replace("\u2028", " ")
    assert data["models"][0]["sha256"] == "</script>"
    assert html.count("<img") == html.count("<b>") == html.count("<!--") == 0
    assert not re.search(r"[<>&]", data_of(html))
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    found = open_page(files, export.facts)(image)
    assert found.shape == (1, 32, 64)
    with torch.inference_mode():
        expected = export.model(minmax(torch.from_numpy(image).permute(2, 0, 1)[None].float())).sigmoid()
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=2e-5)


@needs_node
def test_the_command_compares_full_size_images(workplace, monkeypatch, capsys):
    Image.fromarray(generate_sample(seed=1, index=1, size=(390, 270))[0]).save("photo.png")
    arguments = ["--weights", WEIGHTS, "--format", "html", "--out", "a.html", "--images", "photo.png"]
    monkeypatch.setattr("mhsvm.assemble.exporting._NUM_DRAWN", 1)
    assert command.main([*arguments, "--beside", OTHER]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("a.html: ")
    assert printed[-2].startswith("4 images against float64: probabilities differ by")
    assert printed[-1].startswith("the model beside it: 4 images against float64")
    # the page resizes; a wrong resize would differ by far more
    assert float(re.search(r"differ by (\S+) at most", printed[-2])[1]) < 2e-5


@needs_node
def test_a_page_that_fails_is_an_error_and_leaves_nothing(workplace, monkeypatch):
    before = sorted(workplace.iterdir())
    monkeypatch.setattr("mhsvm.export.html_page.MODULES", ("unpack.js", "resample.js"))
    with pytest.raises(ValueError, match="the page fails under node: openNetworks is not defined"):
        export_trained(small(WEIGHTS), "html", "a.html")
    assert sorted(workplace.iterdir()) == before


@needs_node
def test_a_result_that_differs_leaves_nothing(workplace, monkeypatch):
    before = sorted(workplace.iterdir())
    monkeypatch.setattr("mhsvm.assemble.exporting.HALF_LIMIT", 1e-4)
    with pytest.raises(ValueError, match=r"the html file of .* is not written: its probabilities differ by"):
        export_trained(small(WEIGHTS), "html", "a.html", half=True)
    assert sorted(workplace.iterdir()) == before


def test_without_node_the_page_is_written_and_not_run(workplace, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.main(["--weights", WEIGHTS, "--format", "html", "--out", "a.html"]) == 0
    assert "not run: there is no node (nodejs)" in capsys.readouterr().out
    old = tmp_path / "node"
    old.write_text("#!/bin/sh\necho v16.20.1\n")
    old.chmod(0o755)
    assert node.unavailable_reason() == "node is v16.20.1; the scripts of the page need 18 or newer"


def test_models_and_outputs_that_are_refused(workplace, make_set, make_checkpoint, capsys):
    make_set()
    tiny = ("model.vm_unet.dims", "8,16", "model.vm_unet.depths", "1,1", "model.vm_unet.decoder_depths", "1,1")
    other = make_checkpoint(workplace / "data/lesions.h5", "model.name", "vm_unet", *tiny, path="other.pt")
    checkpoint = make_checkpoint(workplace / "data/lesions.h5")

    def error(*arguments) -> str:
        assert run(command.main, [str(each) for each in arguments]) == 2
        return capsys.readouterr().err

    to = ("--format", "html", "--out")
    assert "runs ultralight_vm_unet, not vm_unet" in error("--p", other, *to, "a.html")
    message = error("--p", checkpoint, *to, "a.html", "--beside", other)
    assert "other.pt cannot be written as html: the C engine runs ultralight_vm_unet, not vm_unet" in message
    assert "--beside is the same checkpoint" in error("--p", checkpoint, *to, "a.html", "--beside", checkpoint)
    assert "there is no checkpoint nothing" in error("--p", checkpoint, *to, "a.html", "--beside", "nothing")
    assert "so it is .html; received 'a.txt'" in error("--p", checkpoint, *to, "a.txt")
    for wrong in ("nan", "1.5"):
        assert "is a probability, 0 to 1; received" in error("--p", checkpoint, *to, "a.html", "--threshold", wrong)
    assert "data is a folder" in error("--p", checkpoint, *to, "data")
    message = error("--p", checkpoint, "--format", "c", "--out", "a.c", "--beside", WEIGHTS)
    assert "the format c holds one model: leave --beside out" in message
    assert not [path for path in workplace.iterdir() if path.name.startswith(("a.", ".export"))]


def test_the_help_has_all_formats_with_their_purposes():
    assert {name: FORMATS[name].purpose for name in FORMATS} == command.FORMATS
    (action,) = [each for each in command.parser()._actions if each.dest == "format"]
    assert all(name in action.help for name in FORMATS)
