"""A model as C source: it computes the network's probabilities, says what it is, and wrong models are refused."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from mhsvm.assemble.exporting import export_trained
from mhsvm.assemble.trained import load_trained
from mhsvm.cli import export as command
from mhsvm.cli.main import run
from mhsvm.export import comparison
from mhsvm.inference.predictor import read_rgb
from mhsvm.models.pretrained import find_pretrained
from mhsvm.native import library
from mhsvm.synthetic import generate_sample
from mhsvm.text_file import read_text

COMPILER = library.find_compiler()
HOW_TO = Path(__file__).parents[2] / "docs/how-to/export.md"
WEIGHTS = "isic2017-wu-sorted"

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


def trained(path, **options):
    return load_trained(path, device=torch.device("cpu"), **options)


@pytest.mark.parametrize(
    "settings",
    [
        ("model.ultralight_vm_unet.channels", "4,4,8,8,12,16", "model.ultralight_vm_unet.branches", "2"),
        ("model.num_classes", "3", "loss.name", "ce_dice", "model.ultralight_vm_unet.bridge", "false"),
    ],
)
def test_probabilities_are_those_of_the_network(workplace, make_set, make_checkpoint, settings):
    checkpoint = make_checkpoint(make_set(num_classes=3 if "3" in settings else 1), *settings)
    exported = export_trained(trained(checkpoint), "c", "net.c")
    assert [str(file) for file in exported.files] == ["net.c", "net.h"]
    assert exported.comparison.num_images == 10
    assert 0 < exported.comparison.greatest < 1e-5
    assert exported.comparison.num_different == 0
    assert exported.comparison.num_pixels == 10 * 32 * 32


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Released weights in 16 bits, as files and as they are compared."""
    folder = tmp_path_factory.mktemp("released")
    exported = export_trained(trained(find_pretrained(WEIGHTS).path), "c", folder / "segment.c", half=True)
    return folder, exported


def test_weights_in_16_bits(released):
    _, exported = released
    assert 1e-4 < exported.comparison.greatest < 1e-2
    assert exported.comparison.num_different < 100
    source, header = exported.files
    assert source.stat().st_size < 500_000
    text = read_text(header)
    assert f"weights: {WEIGHTS}\n" in text
    assert "normalization: minmax" in text
    assert "license of the data: CC-0" in text
    assert "not a medical device" in text
    assert "#define SEGMENT_THRESHOLD 0.5f" in text
    assert not any(str(place) in text + read_text(source) for place in (source.parent, Path.home(), Path.cwd()))


def test_the_program_of_the_how_to_page(released):
    folder, _ = released
    (main,) = [block for block in read_text(HOW_TO).split("```c\n") if "int main" in block]
    (folder / "main.c").write_text(main.partition("```")[0])
    program = folder / "segment"
    sources = [folder / "main.c", folder / "segment.c"]
    subprocess.run([COMPILER, "-O1", "-Wall", "-Wextra", "-Werror", *sources, "-o", program], check=True)
    image, mask = generate_sample(seed=3, index=1)
    done = subprocess.run([program], input=image.tobytes(), capture_output=True, check=True)
    found = np.frombuffer(done.stdout, np.uint8).reshape(mask.shape)
    assert set(np.unique(found)) == {0, 255}
    overlap = ((found > 0) & (mask > 0)).sum() / ((found > 0) | (mask > 0)).sum()
    assert overlap > 0.7


def test_names_cannot_leave_comments_and_texts(workplace, make_set, make_checkpoint):
    name = 'a" */ int x; ?? \n\\b.pt'
    checkpoint = make_checkpoint(make_set(), path=f"results/{name.replace('/', '')}")
    exported = export_trained(trained(checkpoint), "c", "net.c")
    assert exported.comparison.greatest < 1e-5


def test_names_of_functions_of_the_engine(workplace, make_set, make_checkpoint):
    checkpoint = make_checkpoint(make_set(), path="results/ultralight_run3.pt")
    source, _ = export_trained(trained(checkpoint), "c", "ultralight_run.c").files
    assert "weights: ultralight_run3" in read_text(source)


def test_a_folder_in_place_of_the_header_leaves_nothing(workplace, make_set, make_checkpoint):
    checkpoint = make_checkpoint(make_set())
    Path("net.h").mkdir()
    before = sorted(workplace.iterdir())
    with pytest.raises(IsADirectoryError, match=r"net\.h is a folder, where a file is to be written"):
        export_trained(trained(checkpoint), "c", "net.c")
    assert sorted(workplace.iterdir()) == before


@pytest.mark.parametrize("size", [[100, 100], [0, 32]])
@pytest.mark.parametrize(
    ("format", "out"), [("c", "net.c"), ("onnx", "net.onnx"), ("html", "net.html"), ("site", "net")]
)
def test_a_size_that_the_network_does_not_take(workplace, make_set, make_checkpoint, size, format, out):
    model = trained(make_checkpoint(make_set()))
    model.data["size"] = size
    with pytest.raises(ValueError, match=f"images of {size[0]} x {size[1]}, and its network takes multiples of 32"):
        export_trained(model, format, out)
    assert not list(workplace.glob("*net*"))


def test_a_result_that_differs_leaves_nothing(workplace, make_set, make_checkpoint, monkeypatch):
    checkpoint = make_checkpoint(make_set())
    monkeypatch.setattr("mhsvm.assemble.exporting.LIMIT", 1e-12)
    before = sorted(workplace.iterdir())
    with pytest.raises(ValueError, match=r"the c file of .* is not written: its probabilities differ by .* is 1e-12"):
        export_trained(trained(checkpoint), "c", "net.c")
    assert sorted(workplace.iterdir()) == before
    assert comparison.LIMIT == 1e-4


def test_models_and_outputs_that_are_refused(workplace, make_set, make_checkpoint, capsys):
    make_set()
    tiny = ("model.vm_unet.dims", "8,16", "model.vm_unet.depths", "1,1", "model.vm_unet.decoder_depths", "1,1")
    other = make_checkpoint(workplace / "data/lesions.h5", "model.name", "vm_unet", *tiny, path="other.pt")
    checkpoint = make_checkpoint(workplace / "data/lesions.h5")

    def error(*arguments) -> str:
        assert run(command.main, [str(each) for each in arguments]) == 2
        return capsys.readouterr().err

    to = ("--format", "c", "--out")
    assert "runs ultralight_vm_unet, not vm_unet" in error("--p", other, *to, "net.c")
    assert "letters, digits and _, such as segment.c; received '1-a.c'" in error("--p", checkpoint, *to, "1-a.c")
    assert "there is no folder nowhere" in error("--p", checkpoint, *to, "nowhere/net.c")
    assert "unknown export format 'onx'" in error("--p", checkpoint, "--format", "onx", "--out", "net.c")
    assert "data is a folder" in error("--p", checkpoint, *to, "data")
    assert not list(workplace.glob("net*"))


def test_the_command_compares_on_given_images(workplace, capsys):
    from PIL import Image

    Image.fromarray(generate_sample(seed=1, index=1, size=(90, 70))[0]).save("photo.jpg")
    assert command.main(["--weights", WEIGHTS, "--format", "c", "--out", "net", "--images", "photo.jpg"]) == 0
    printed = capsys.readouterr().out
    assert "net.c: " in printed
    assert "11 images against float64: probabilities differ by" in printed
    assert read_rgb("photo.jpg").shape == (90, 70, 3)


def test_weights_that_16_bits_cannot_hold(workplace):
    model = trained(find_pretrained(WEIGHTS).path)
    with torch.no_grad():
        model.model.head.weight[0, 0] = 70_000
    with pytest.raises(ValueError, match="a weight is 70000, which 16 bits cannot hold: leave `half` out"):
        export_trained(model, "c", "a.c", half=True)
    model.model.head.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="a weight is nan, which a float cannot hold"):
        export_trained(model, "c", "a.c")
    assert not list(workplace.glob("a*"))
